#include "attention/prefill_mma.cuh"

namespace mmcore::cuda {

template Status launch_prefill_e4m3<80>(const char*, const PrefillParams&, cudaStream_t);

}  // namespace mmcore::cuda
