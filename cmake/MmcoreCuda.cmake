# Decides whether the CUDA backend is built. "auto" wants a compiler, a GPU and CUTLASS's headers; "on" fails loudly
# without a compiler or the headers.

# CUTLASS is headers only. pip's nvidia-cutlass carries them; a checkout or a distribution's package do as well.
function(mmcore_find_cutlass)
  find_path(MMCORE_CUTLASS_INCLUDE cutlass/cutlass.h DOC "CUTLASS headers, as in pip's nvidia-cutlass")
  if(MMCORE_CUTLASS_INCLUDE)
    return()
  endif()
  find_package(Python QUIET COMPONENTS Interpreter)
  if(Python_Interpreter_FOUND)
    execute_process(COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util as u; print(u.find_spec('cutlass_library').submodule_search_locations[0] + '/source/include')"
      OUTPUT_VARIABLE packaged OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(packaged)
      find_path(MMCORE_CUTLASS_INCLUDE cutlass/cutlass.h PATHS ${packaged} NO_DEFAULT_PATH)
    endif()
  endif()
endfunction()

set(mmcore_with_cuda OFF)
if(MMCORE_CUDA STREQUAL "auto")
  find_program(mmcore_nvcc nvcc HINTS $ENV{CUDACXX} /usr/local/cuda/bin)
  find_program(mmcore_nvidia_smi nvidia-smi)
  if(mmcore_nvcc AND mmcore_nvidia_smi)
    execute_process(COMMAND ${mmcore_nvidia_smi} -L OUTPUT_VARIABLE mmcore_gpus ERROR_QUIET RESULT_VARIABLE mmcore_smi_rc)
    if(mmcore_smi_rc EQUAL 0 AND mmcore_gpus MATCHES "GPU 0")
      mmcore_find_cutlass()
      if(MMCORE_CUTLASS_INCLUDE)
        set(mmcore_with_cuda ON)
      else()
        message(STATUS "mmcore: there is a GPU, but CUTLASS's headers are missing (docs/cuda.md): no CUDA backend")
      endif()
    endif()
  endif()
elseif(MMCORE_CUDA)
  set(mmcore_with_cuda ON)
  mmcore_find_cutlass()
  if(NOT MMCORE_CUTLASS_INCLUDE)
    message(FATAL_ERROR "The CUDA backend needs CUTLASS's headers: pip install --no-deps 'nvidia-cutlass>=4.2,<4.3', "
      "or set MMCORE_CUTLASS_INCLUDE to the folder that holds cutlass/cutlass.h.")
  endif()
endif()
message(STATUS "mmcore: CUDA backend ${mmcore_with_cuda} (MMCORE_CUDA=${MMCORE_CUDA})")

if(mmcore_with_cuda)
  # real: machine code for that chip. virtual: PTX, which newer drivers compile.
  #   80 Ampere (runs on 86 too)   89 Ada   90a Hopper with wgmma, this chip alone   100 Blackwell
  # Without a GPU "native" only warns and builds something else, so the list is explicit.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 89-real 90a-real 100-real 100-virtual)
  endif()
  find_program(mmcore_nvcc nvcc HINTS /usr/local/cuda/bin)
  if(mmcore_nvcc AND NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    set(CMAKE_CUDA_COMPILER ${mmcore_nvcc})
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit 12.8 REQUIRED)
endif()
