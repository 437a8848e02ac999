#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

MMCORE_WGMMA_OP(128)

Status run_wgmma_128(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma_tile<kTile128>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
