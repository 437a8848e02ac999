set(MMCORE_CORE_TESTS
  engine/engine_test.cpp
  engine/shadow_runner.cpp
  engine/simulation.cpp
  engine/simulation_test.cpp
)
