#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_128_wide(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma_tile<kTile128Wide>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
