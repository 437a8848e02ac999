#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_192_late(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma<WgmmaConfig<__nv_bfloat16, kTile192Late>>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
