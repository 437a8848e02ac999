#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_64(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma_tile<kTile64>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
