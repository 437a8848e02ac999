set(MMCORE_CUDA_SOURCES
  host/device.cpp
  pending.cpp
)
