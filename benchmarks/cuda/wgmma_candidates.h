// Tile shapes that the library does not have, to be timed beside its own.
#pragma once

#include <array>

#include "matrix/problem.h"
#include "matrix/wgmma_tiles.h"

namespace mmcore::bench {

struct Tile {
  const char* name;
  cuda::WgmmaTile shape;
  Status (*run)(const char*, const cuda::MatrixProblem&, int, cudaStream_t);
};

extern const std::array<Tile, 2> kCandidates;

}  // namespace mmcore::bench
