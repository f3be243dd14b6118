// From a detector's raw outputs to its objects, as effnet computes them; it needs no runtime.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

struct Object {
  std::array<float, 4> box;  // left, top, right, bottom in pixels of the input
  float score;
  int64_t kind;  // the number of the class
};

// A cell of a level: its centre and its sides, in pixels.
struct Cell {
  float x, y, width, height;
};

// The cells of levels 3 to 6, whose strides are about 8, 16, 32 and 64 pixels, row by row.
inline std::vector<Cell> cells(int64_t height, int64_t width) {
  std::vector<Cell> found;
  for (int level = 3; level <= 6; ++level) {
    const int64_t stride = int64_t{1} << level, rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
    const float wide = float(width) / float(columns), high = float(height) / float(rows);
    for (int64_t y = 0; y < rows; ++y) {
      for (int64_t x = 0; x < columns; ++x) found.push_back({(float(x) + 0.5f) * wide, (float(y) + 0.5f) * high, wide, high});
    }
  }
  return found;
}

// The area that two boxes share over the area of both.
inline float overlap(const std::array<float, 4>& a, const std::array<float, 4>& b) {
  const float shared = std::max(0.0f, std::min(a[2], b[2]) - std::max(a[0], b[0])) * std::max(0.0f, std::min(a[3], b[3]) - std::max(a[1], b[1]));
  return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared);
}

// Returns the objects, best first. `raw` are 4 numbers of each of `places`: the logarithms of the distances to the left, top,
// right and bottom, in cells; `logits` are one number of each of `classes` at each place.
inline std::vector<Object> detect(const float* raw, const float* logits, int64_t places, int64_t classes, int64_t height, int64_t width,
                                  float threshold, float iou = 0.6f, size_t most = 1000) {
  const auto cell = cells(height, width);
  if (int64_t(cell.size()) != places) throw std::runtime_error("the model's boxes are not around points, which this program needs");
  const float least = std::log(threshold / (1 - threshold));
  std::vector<int64_t> order;
  for (int64_t i = 0; i < places * classes; ++i) {
    if (logits[i] >= least) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
  order.resize(std::min(order.size(), most));
  std::vector<Object> kept;
  for (const int64_t i : order) {
    const auto& [x, y, wide, high] = cell[size_t(i / classes)];
    const float* four = raw + 4 * (i / classes);
    const auto cellsTo = [&](int side) { return std::exp(std::min(four[side], 6.0f)); };
    const Object object{{x - cellsTo(0) * wide, y - cellsTo(1) * high, x + cellsTo(2) * wide, y + cellsTo(3) * high},
                        1 / (1 + std::exp(-logits[i])), i % classes};
    const auto repeats = [&](const Object& other) { return other.kind == object.kind && overlap(other.box, object.box) > iou; };
    if (std::none_of(kept.begin(), kept.end(), repeats)) kept.push_back(object);
  }
  return kept;
}
