set(MMCORE_CUDA_TESTS
  attention/prefill_test.cpp
  attention/varlen_test.cpp
  host/device_test.cpp
)
