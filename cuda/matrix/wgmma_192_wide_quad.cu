#include "matrix/wgmma.cuh"

namespace mmcore::cuda {

Status run_wgmma_192_wide_quad(const char* op, const MatrixProblem& p, int blocks,
                               cudaStream_t stream) {
  return launch_wgmma<WgmmaConfig<__nv_bfloat16, kTile192WideQuad>>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
