// A finished model in C++: its model.onnx holds normalisation and class names.
// classify model.onnx image.ppm prints the most likely classes; the image has the model's resolution and was resized as
// `preprocess` in the file's metadata says (mode center, squash or pad); for a square image and crop 1 they are one:
//   python -c "from PIL import Image; Image.open('cat.jpg').convert('RGB').resize((224, 224)).save('cat.ppm')"
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "files.h"

static int run(const std::string& model, const std::string& path) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "classify");
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
  if (!listed) throw std::runtime_error(model + " has no class names: it is not effnet's");
  const auto names = read_list(listed.get());

  auto image = read_image(path);
  auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // [batch, side, side, channels]
  shape[0] = 1;
  if (shape != std::vector<int64_t>{1, image.height, image.width, image.channels}) {
    throw std::runtime_error("the image must have " + std::to_string(shape[2]) + " x " + std::to_string(shape[1]) + " pixels of " + std::to_string(shape[3]) + " channels");
  }
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<uint8_t>(memory, image.pixels.data(), image.pixels.size(), shape.data(), shape.size());
  const char* inputs[] = {"image"};
  const char* outputs[] = {"probabilities"};
  auto found = session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 1);
  const float* probabilities = found[0].GetTensorData<float>();

  std::vector<size_t> order(names.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return probabilities[a] > probabilities[b]; });
  for (size_t i = 0; i < std::min<size_t>(5, order.size()); ++i) {
    std::printf("%.6f %s\n", probabilities[order[i]], names[order[i]].c_str());
  }
  return 0;
}

int main(int count, char** words) {
  if (count != 3) {
    std::cerr << "usage: classify model.onnx image.ppm\n";
    return 2;
  }
  try {
    return run(words[1], words[2]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
