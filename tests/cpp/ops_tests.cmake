# Files named *_avx2 / *_avx512 are compiled for that instruction set, as in cpp/kernels_sources.cmake.
set(MMCORE_OPS_TESTS
  ops/activation_test.cpp
  ops/attention_case.cpp
  ops/embedding_merge_test.cpp
  ops/host_tensor.cpp
  ops/linear_case.cpp
  ops/linear_test.cpp
  ops/logprobs_test.cpp
  ops/norm_test.cpp
  ops/paged_attention_test.cpp
  ops/sample_oracle.cpp
  ops/sample_test.cpp
  ops/uniform_test.cpp
  ops/varlen_attention_test.cpp
  ops/vision_projector_test.cpp
  ops/vocab_row_test.cpp
)
