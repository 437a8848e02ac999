#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

MMCORE_WGMMA_OP(256)

Status run_wgmma_256(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma_tile<kTile256>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
