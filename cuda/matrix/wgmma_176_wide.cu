#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_176_wide(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma_tile<kTile176Wide>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
