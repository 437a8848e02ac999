# Files named *_avx2 / *_avx512 are compiled for that instruction set, as in cpp/kernels_sources.cmake.
set(MMCORE_OPS_TESTS
  ops/attention_case.cpp
  ops/host_tensor.cpp
  ops/paged_attention_test.cpp
  ops/varlen_attention_test.cpp
)
