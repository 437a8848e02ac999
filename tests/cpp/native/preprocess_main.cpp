// Prepares pictures as a checkpoint asks for: what the Python tests compare with transformers.
//
//   mmcore_native_preprocess FOLDER < PICTURES > PIXELS
//
// PICTURES: for each two int32, width and height, then its RGB bytes. PIXELS: float32 [3, H, W] for
// each.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "mmcore/native.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: mmcore_native_preprocess FOLDER\n");
    return 2;
  }
  const auto processor = mmcore::native::Preprocessor::load(argv[1]);
  if (!processor.ok()) {
    std::fprintf(stderr, "%s\n", processor.status().message().c_str());
    return 1;
  }
  int32_t size[2];
  while (std::fread(size, sizeof(int32_t), 2, stdin) == 2) {
    std::vector<uint8_t> rgb(size_t{3} * static_cast<size_t>(size[0]) *
                             static_cast<size_t>(size[1]));
    if (std::fread(rgb.data(), 1, rgb.size(), stdin) != rgb.size()) return 2;
    const auto pixels = (*processor.value())({rgb.data(), size[0], size[1]});
    if (!pixels.ok()) {
      std::fprintf(stderr, "%s\n", pixels.status().message().c_str());
      return 1;
    }
    std::fwrite(pixels.value().data(), sizeof(float), pixels.value().size(), stdout);
  }
  return 0;
}
