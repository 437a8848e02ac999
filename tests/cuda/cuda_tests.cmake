set(MMCORE_CUDA_TESTS
  host/device_test.cpp
)
