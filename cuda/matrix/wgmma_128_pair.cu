#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_128_pair(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma_tile<kTile128Pair>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
