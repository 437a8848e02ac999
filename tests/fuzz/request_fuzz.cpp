// libFuzzer's target over the request struct; clang only.
#include "request_entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mmcore::fuzz::run_request(data, size);
  return 0;
}
