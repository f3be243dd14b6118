// What the programs of this folder read: images, and the lists in a model's metadata.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;  // [height, width, channels]
};

// Reads a binary PPM (P6) or PGM (P5) of 8 bits without comments.
inline Image read_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int most = 0;
  Image image;
  file >> kind >> image.width >> image.height >> most;
  if (!file || (kind != "P6" && kind != "P5") || most != 255) throw std::runtime_error(path + " must be a PPM or PGM of 8 bits");
  file.get();  // the one blank before the pixels
  image.channels = kind == "P6" ? 3 : 1;
  image.pixels.resize(image.height * image.width * image.channels);
  file.read(reinterpret_cast<char*>(image.pixels.data()), static_cast<std::streamsize>(image.pixels.size()));
  if (!file) throw std::runtime_error(path + " ends before its last pixel");
  return image;
}

// Returns the texts of a JSON list, such as ["cat", "caf\u00e9"]; effnet writes names as UTF-8, and escapes only " \ and
// control characters.
inline std::vector<std::string> read_list(const std::string& json) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < json.size(); ++i) {
    if (json[i] != '"') continue;
    std::string text;
    for (++i; i < json.size() && json[i] != '"'; ++i) {
      if (json[i] == '\\' && i + 1 < json.size()) ++i;
      text += json[i];
    }
    texts.push_back(text);
  }
  return texts;
}

// Returns the bytes of the mean colour, which fills the input around an image: `mean` of the preprocessing, from 0 to 1.
inline std::vector<uint8_t> read_fill(const std::string& preprocess, size_t channels) {
  auto at = preprocess.find("\"mean\": [");
  std::vector<uint8_t> fill;
  for (const char* text = preprocess.c_str() + at + 9; at != std::string::npos && fill.size() < channels; ++text) {
    char* end = nullptr;
    fill.push_back(static_cast<uint8_t>(std::lround(255 * std::strtod(text, &end))));
    text = end;
  }
  if (fill.size() != channels) throw std::runtime_error("the model's preprocessing has no mean of each channel");
  return fill;
}
