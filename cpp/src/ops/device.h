// Where an op runs.
#pragma once

#include "mmcore/ops.h"

namespace mmcore::ops {

/// kUnsupported with the op's name: tensors on a device that this build has no kernels for.
Status no_kernels_for(const char* op, Device device);

}  // namespace mmcore::ops
