# Files named *_avx2 / *_avx512 / *_avx512bf16 / *_amxbf16 are compiled for that instruction set and entered only after a
# run-time check (ops/simd/vec.h says what they may contain). The pool is here, not in core: a shared core would hide it.
set(MMCORE_KERNELS_SOURCES
  src/base/cpu_topology.cpp
  src/base/thread_pool.cpp
  src/ops/activation.cpp
  src/ops/activation_cpu.cpp
  src/ops/add.cpp
  src/ops/attention/attention.cpp
  src/ops/attention/attention_cpu.cpp
  src/ops/attention/entry_check.cpp
  src/ops/attention/gpu_plan.cpp
  src/ops/attention/prefill_cut.cpp
  src/ops/attention/prefill_order.cpp
  src/ops/attention/plan.cpp
  src/ops/cache_scale.cpp
  src/ops/copy_blocks.cpp
  src/ops/cpu_isa.cpp
  src/ops/embedding_merge.cpp
  src/ops/linear.cpp
  src/ops/linear_cpu.cpp
  src/ops/logit_edits.cpp
  src/ops/logprobs.cpp
  src/ops/norm.cpp
  src/ops/norm_cpu.cpp
  src/ops/paged_attention.cpp
  src/ops/rope_kv_write.cpp
  src/ops/rope_kv_write_cpu.cpp
  src/ops/sample.cpp
  src/ops/sample_row.cpp
  src/ops/sample_tensors.cpp
  src/ops/uniform.cpp
  src/ops/varlen_attention.cpp
  src/ops/vision_projector.cpp
  src/ops/vocab_kernels_cpu.cpp
  src/ops/vocab_row.cpp
  src/tensor/shape_check.cpp
  src/tensor/tensor.cpp
)
# Only on x86-64; where they are missing the reference runs. Code that calls into them tests __x86_64__.
set(MMCORE_KERNELS_X86_SOURCES
  src/ops/activation_avx2.cpp
  src/ops/activation_avx512.cpp
  src/ops/attention/attention_amxbf16.cpp
  src/ops/attention/attention_avx2.cpp
  src/ops/attention/attention_avx512.cpp
  src/ops/attention/attention_avx512bf16.cpp
  src/ops/linear_amxbf16.cpp
  src/ops/linear_avx2.cpp
  src/ops/linear_avx512.cpp
  src/ops/linear_avx512bf16.cpp
  src/ops/norm_avx2.cpp
  src/ops/norm_avx512.cpp
  src/ops/rope_kv_write_avx2.cpp
  src/ops/rope_kv_write_avx512.cpp
  src/ops/vocab_kernels_avx2.cpp
  src/ops/vocab_kernels_avx512.cpp
)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND MMCORE_KERNELS_SOURCES ${MMCORE_KERNELS_X86_SOURCES})
endif()
# -Wno-uninitialized: the AVX-512 intrinsics of GCC 12 trip over their own undefined values.
foreach(source ${MMCORE_KERNELS_SOURCES})
  if(source MATCHES "_avx2\\.cpp$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  elseif(source MATCHES "_avx512\\.cpp$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
      "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512;-Wno-uninitialized;-Wno-maybe-uninitialized")
  elseif(source MATCHES "_avx512bf16\\.cpp$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
      "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512bf16;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512;-Wno-uninitialized;-Wno-maybe-uninitialized")
  elseif(source MATCHES "_amxbf16\\.cpp$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
      "-mamx-tile;-mamx-bf16;-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512bf16;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512;-Wno-uninitialized;-Wno-maybe-uninitialized")
  endif()
endforeach()
