// libFuzzer's target over safetensors files; clang only.
#include "safetensors_entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mmcore::fuzz::run_safetensors(data, size);
  return 0;
}
