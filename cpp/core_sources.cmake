set(MMCORE_CORE_SOURCES
  src/base/status.cpp
)
