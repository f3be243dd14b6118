// A finished detector in C++: its model.onnx holds normalisation, class names and the threshold.
// detect model.onnx image.ppm prints the objects: class, score, left, top, right and bottom in pixels of the image, which
// must fit into the model's input, as large as possible; for an input of 320 x 320 pixels:
//   python -c "from PIL import Image; i = Image.open('coins.jpg').convert('RGB'); i.thumbnail((320, 320)); i.save('coins.ppm')"
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "boxes.h"
#include "files.h"

// Returns the bytes of an input, [height, width, channels], with the image at its top left and `fill` around it.
static std::vector<uint8_t> placed(const Image& image, const std::vector<int64_t>& shape, const std::vector<uint8_t>& fill) {
  if (image.height > shape[1] || image.width > shape[2] || image.channels != shape[3]) {
    throw std::runtime_error("the image must have at most " + std::to_string(shape[2]) + " x " + std::to_string(shape[1]) + " pixels of " + std::to_string(shape[3]) + " channels");
  }
  std::vector<uint8_t> input(shape[1] * shape[2] * shape[3]);
  for (size_t i = 0; i < input.size(); ++i) input[i] = fill[i % fill.size()];
  const int64_t row = image.width * image.channels;
  for (int64_t y = 0; y < image.height; ++y) {
    std::copy_n(image.pixels.begin() + y * row, row, input.begin() + y * shape[2] * shape[3]);
  }
  return input;
}

static int run(const std::string& model, const std::string& path) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "detect");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
#ifdef _WIN32
  Ort::Session session(env, std::wstring(model.begin(), model.end()).c_str(), options);
#else
  Ort::Session session(env, model.c_str(), options);
#endif
  Ort::AllocatorWithDefaultOptions allocator;
  auto metadata = session.GetModelMetadata();
  auto listed = metadata.LookupCustomMetadataMapAllocated("class_names", allocator);
  auto least = metadata.LookupCustomMetadataMapAllocated("threshold", allocator);
  auto preprocess = metadata.LookupCustomMetadataMapAllocated("preprocess", allocator);
  if (!listed || !least || !preprocess) throw std::runtime_error(model + " has no class names or no threshold: it is no detector of effnet's");
  const auto names = read_list(listed.get());

  const auto image = read_image(path);
  auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // [batch, height, width, channels]
  shape[0] = 1;
  auto pixels = placed(image, shape, read_fill(preprocess.get(), size_t(shape[3])));
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
  const char* inputs[] = {"image"};
  const char* outputs[] = {"boxes", "scores"};
  auto raw = session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 2);
  const int64_t places = raw[0].GetTensorTypeAndShapeInfo().GetShape()[1];
  const auto found = detect(raw[0].GetTensorData<float>(), raw[1].GetTensorData<float>(), places, int64_t(names.size()), shape[1],
                            shape[2], std::stof(least.get()));
  for (const auto& object : found) {
    const float sides[] = {std::clamp(object.box[0], 0.0f, float(image.width)), std::clamp(object.box[1], 0.0f, float(image.height)),
                           std::clamp(object.box[2], 0.0f, float(image.width)), std::clamp(object.box[3], 0.0f, float(image.height))};
    if (sides[2] <= sides[0] || sides[3] <= sides[1]) continue;  // what lies in the padding is nothing in the image
    std::printf("%s %.6f %.2f %.2f %.2f %.2f\n", names[size_t(object.kind)].c_str(), object.score, sides[0], sides[1], sides[2], sides[3]);
  }
  return 0;
}

int main(int count, char** words) {
  if (count != 3) {
    std::cerr << "usage: detect model.onnx image.ppm\n";
    return 2;
  }
  try {
    return run(words[1], words[2]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
