// One matrix product after the checks, and the kernels that compute it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "host/device.h"
#include "mmcore/ops.h"
#include "mmcore/status.h"
#include "mmcore/types.h"

namespace mmcore::cuda {

/// out[rows[m]] = act(x[m] w^T + bias) for m < tokens; x [tokens, k], w [n, k], out [out_rows, n].
/// Strides count elements. Rows outside [0, out_rows) are not stored.
struct MatrixProblem {
  DType dtype = DType::kFloat32;
  const void* x = nullptr;
  int64_t x_stride = 0;
  const void* w = nullptr;
  int64_t w_stride = 0;
  const void* bias = nullptr;  // [n] or null
  void* out = nullptr;
  int64_t out_stride = 0;
  const int64_t* rows = nullptr;  // [tokens] or null: row m
  int64_t out_rows = 0;
  int64_t tokens = 0;
  int64_t n = 0;
  int64_t k = 0;
  ops::Activation act = ops::Activation::kNone;
  bool steady_weights = false;  // the kernel in front on the stream writes none of w
};

/// Chooses a kernel and launches it; the device is current.
Status run_matrix(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
                  cudaStream_t stream);

// ---- kernels; each says what it needs beyond 1 <= tokens, n and sizes up to 2^30

/// float32, any alignment, any k: multiply-adds in the order of k.
Status run_simt(const char* op, const MatrixProblem& p, cudaStream_t stream);

/// Up to 8 tokens of float32, or 1 of 16 bits: a warp per output, float32 multiply-adds. Rows of x
/// and w aligned to 16 bytes, k a multiple of 16 bytes.
Status run_gemv(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
                cudaStream_t stream);

/// Up to 16 tokens of 16 bits on tensor cores, weights read once. Alignment as run_gemv.
Status run_skinny(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
                  cudaStream_t stream);

/// 16 bits on tensor cores of any device from capability 8.0 on, any alignment.
Status run_tensor_core(const char* op, const MatrixProblem& p, cudaStream_t stream);

/// What the wgmma kernels need: capability 9.0, 16 bits, k >= 1, n % 8 == 0, rows of x, w and out
/// aligned to 16 bytes.
bool fits_wgmma(const MatrixProblem& p, const DeviceFacts& facts);
/// As the shape suggests, one of the tiles of wgmma_tiles.h.
Status run_wgmma(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
                 cudaStream_t stream);

}  // namespace mmcore::cuda
