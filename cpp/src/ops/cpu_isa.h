// Which of an op's CPU implementations runs; the public side is in mmcore/ops.h.
//
//   switch (cpu_isa()) { case CpuIsa::kAvx512Bf16: ...; case kAvx512: ...; case kAvx2: ...; }
//
// An op without a variant for the chosen instruction set takes the next lower one.
#pragma once

#include "mmcore/ops.h"

namespace mmcore::ops {

/// The best that this machine and its operating system can run.
CpuIsa detected_cpu_isa();

}  // namespace mmcore::ops
