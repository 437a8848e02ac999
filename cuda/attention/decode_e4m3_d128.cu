#include "attention/decode_streams.cuh"

namespace mmcore::cuda {

template Status launch_decode_float8<__nv_bfloat16, 128>(const DecodeParams&, int64_t, int32_t,
                                                         const DeviceFacts&, cudaStream_t);
template Status launch_decode_float8<__half, 128>(const DecodeParams&, int64_t, int32_t,
                                                  const DeviceFacts&, cudaStream_t);

}  // namespace mmcore::cuda
