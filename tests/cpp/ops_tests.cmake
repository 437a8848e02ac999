# Files named *_avx2 / *_avx512 are compiled for that instruction set, as in cpp/kernels_sources.cmake.
set(MMCORE_OPS_TESTS
  base/thread_pool_test.cpp
  ops/activation_test.cpp
  ops/add_test.cpp
  ops/attention_case.cpp
  ops/attention_refusals_test.cpp
  ops/copy_blocks_test.cpp
  ops/cpu_isa_test.cpp
  ops/embedding_merge_test.cpp
  ops/gpu_plan_test.cpp
  ops/prefill_cut_test.cpp
  ops/prefill_order_test.cpp
  ops/host_tensor.cpp
  ops/linear_case.cpp
  ops/linear_test.cpp
  ops/logprobs_test.cpp
  ops/norm_test.cpp
  ops/paged_attention_test.cpp
  ops/rope_kv_write_test.cpp
  ops/sample_oracle.cpp
  ops/sample_tensors_test.cpp
  ops/sample_test.cpp
  ops/uniform_test.cpp
  ops/varlen_attention_test.cpp
  ops/vision_projector_test.cpp
  ops/vocab_row_test.cpp
  tensor/float8_test.cpp
  tensor/half_test.cpp
  tensor/shape_check_test.cpp
)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND MMCORE_OPS_TESTS ops/simd_math_avx2.cpp ops/simd_math_avx512.cpp ops/simd_math_test.cpp)
  set_source_files_properties(ops/simd_math_avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(ops/simd_math_avx512.cpp PROPERTIES COMPILE_OPTIONS
    "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx2;-mfma;-mf16c;-Wno-uninitialized;-Wno-maybe-uninitialized")
endif()
