// mmcore_runner_* and mmcore_payload_*.
#include <memory>
#include <string>
#include <utility>

#include "c_api/handles.h"
#include "c_api/sized_struct.h"
#include "c_api/table_runner.h"

namespace {

using namespace mmcore;
using namespace mmcore::c_api;

/// Ends a handle; the object goes with its last user.
template <class Table>
mmcore_status drop(const char* kind, uint64_t handle) {
  return entry([&]() -> mmcore_status {
    return Table::instance().take(handle) == nullptr ? no_handle(kind) : MMCORE_OK;
  });
}

}  // namespace

mmcore_status mmcore_runner_create(const mmcore_runner_functions* functions, void* context,
                                   mmcore_runner* runner) {
  return entry([&]() -> Status {
    if (runner == nullptr) return null_argument("runner");
    *runner = 0;
    mmcore_runner_functions known{};
    MMCORE_RETURN_IF_ERROR(read_struct("mmcore_runner_functions", functions, known));
    if ((known.begin == nullptr) != (known.end == nullptr))
      return null_argument(known.begin == nullptr ? "begin, where end is set,"
                                                  : "end, where begin is set,");
    if (known.execute == nullptr && known.begin == nullptr) return null_argument("execute");
    if (known.num_host_blocks < 0)
      return Status::invalid_argument(
          "num_host_blocks is " + std::to_string(known.num_host_blocks) + "; expected 0 or more.");
    auto made = std::make_shared<TableRunner>(known, context);
    MMCORE_RETURN_IF_ERROR(make_runner(made, runner));
    // Last: a context is destroyed only if a handle was given out for it.
    made->own_context(known.destroy);
    return {};
  });
}

mmcore_status mmcore_runner_destroy(mmcore_runner runner) {
  return drop<Runners>("a runner", runner);
}

mmcore_status mmcore_payload_destroy(mmcore_payload payload) {
  return drop<Payloads>("a payload", payload);
}
