// The driver's function that describes a tensor to the bulk tensor copy engine.
#pragma once

#include <cuda.h>

namespace mmcore::cuda {

using TensorMapEncoder = decltype(&cuTensorMapEncodeTiled);

/// cuTensorMapEncodeTiled, found at run time so that nothing links against the driver; null where
/// the driver is older than CUDA 12.
TensorMapEncoder tensor_map_encoder();

}  // namespace mmcore::cuda
