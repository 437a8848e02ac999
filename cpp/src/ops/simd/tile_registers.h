// The tile registers of AMX; for *_amxbf16.cpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace mmcore::ops::simd {
namespace {

/// All eight hold 16 rows of 64 bytes while it lives; released afterwards, so that the system need
/// not save them.
class TileRegisters {
 public:
  TileRegisters() {
    alignas(64) uint8_t config[64] = {1};  // palette 1
    for (int i = 0; i < 8; ++i) {
      config[16 + 2 * i] = 64;
      config[48 + i] = 16;
    }
    _tile_loadconfig(config);
  }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
  ~TileRegisters() { _tile_release(); }
};

}  // namespace
}  // namespace mmcore::ops::simd
