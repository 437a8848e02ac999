#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_192_late_f(const char* op, const MatrixProblem& p, int blocks,
                            cudaStream_t stream) {
  return launch_wgmma<WgmmaConfig<__nv_bfloat16, kTile192LateF>>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
