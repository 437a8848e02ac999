// The threads that CPU ops share: one pool a process, started at the first parallel call.
//
// Any thread may call. One call at a time has the pool; a call that finds it taken, or that comes
// from inside another one, runs inline on its own thread, so nothing ever waits for somebody
// else's work. After fork() the child starts a pool of its own when it needs one.
#pragma once

#include <cstdint>

#include "base/function_ref.h"

namespace mmcore {

/// Calls body(begin, end) for disjoint ranges that cover [0, n) and returns when all are done.
/// Every `begin` is a multiple of `grain` (>= 1); the ranges depend on the number of threads, and
/// who runs which on timing, so results must not. The first exception of a body is rethrown here
/// after the others have stopped; ranges not begun by then are skipped.
/// Costs about 1 us when the workers are awake; idle workers sleep after some tens of microseconds.
void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t begin, int64_t end)> body);

/// Threads of the pool, the caller included.
int pool_threads();

/// Waits for a running call, then restarts the pool with max(1, n) threads. Ignored inside a body.
void set_pool_threads(int n);

}  // namespace mmcore
