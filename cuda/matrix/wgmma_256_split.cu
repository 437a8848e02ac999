#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_256_split(const char* op, const MatrixProblem& p, int blocks,
                           cudaStream_t stream) {
  return launch_wgmma_tile<kTile256Split>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
