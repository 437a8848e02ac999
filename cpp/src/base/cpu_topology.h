// What this process may use of the machine's processors.
#pragma once

namespace mmcore {

/// Counts physical cores in the affinity mask of the calling thread, bounded by the control group's
/// CPU quota; at least 1. Reads files: call it once.
int usable_cores();

}  // namespace mmcore
