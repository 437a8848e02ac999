#include "attention/prefill_wgmma.cuh"

namespace mmcore::cuda {

template Status launch_prefill_wgmma_e4m3<256>(const char*, const PrefillParams&,
                                               const DeviceFacts&, cudaStream_t);

}  // namespace mmcore::cuda
