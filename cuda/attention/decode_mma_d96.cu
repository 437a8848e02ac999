#include "attention/decode_mma.cuh"

namespace mmcore::cuda {

template Status launch_decode_rows<__nv_bfloat16, __nv_bfloat16, 96>(const DecodeParams&, int32_t,
                                                                     const DeviceFacts&,
                                                                     cudaStream_t);
template Status launch_decode_rows<__half, __half, 96>(const DecodeParams&, int32_t,
                                                       const DeviceFacts&, cudaStream_t);

}  // namespace mmcore::cuda
