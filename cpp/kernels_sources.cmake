# Files named *_avx2 / *_avx512 / *_avx512bf16 are compiled for that instruction set and entered only after a run-time check.
set(MMCORE_KERNELS_SOURCES
  src/tensor/tensor.cpp
)
foreach(source ${MMCORE_KERNELS_SOURCES})
  if(source MATCHES "_avx2\\.cpp$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  elseif(source MATCHES "_avx512\\.cpp$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
      "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512")
  elseif(source MATCHES "_avx512bf16\\.cpp$")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
      "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512bf16;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512")
  endif()
endforeach()
