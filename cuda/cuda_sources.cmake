set(MMCORE_CUDA_SOURCES
  attention/prefill.cpp
  host/device.cpp
  pending.cpp
)
