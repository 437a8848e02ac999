# What a host has around the engine: the loop with its thread, the C API. A program of its own, since it is the one that
# the thread sanitizer is for.
set(MMCORE_HOST_TESTS
  engine/engine_loop_test.cpp
  engine/engine_loop_misuse_test.cpp
  engine/runner_books_test.cpp
  c_api/callback_test.cpp
  c_api/engine_test.cpp
  c_api/misuse_test.cpp
  c_api/overlap_test.cpp
  c_api/runner_test.cpp
  c_api/sized_struct_test.cpp
)
