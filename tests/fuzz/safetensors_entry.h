// The entry of the safetensors fuzzer: bytes are a file, which is read or refused.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmcore::fuzz {

struct Read {
  int64_t accepted = 0;
  int64_t tensors = 0;  // of the files that were accepted
  int64_t refused = 0;
  int64_t sum_of_bytes = 0;
};

/// Opens the bytes as a safetensors file. Throws when what is accepted is not true: a tensor
/// outside of the file or over another one, or with more bytes than its shape takes, a byte that
/// belongs to nothing; or when a refusal names no reason.
void run_safetensors(const uint8_t* data, size_t size);

/// What became of the files so far.
Read files_read();

}  // namespace mmcore::fuzz
