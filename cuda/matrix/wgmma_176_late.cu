#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_176_late(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma<WgmmaConfig<__nv_bfloat16, kTile176Late>>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
