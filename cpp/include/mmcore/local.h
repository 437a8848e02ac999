// For a class inside an exported one, which a shared library would export with it.
#pragma once

#if defined(MMCORE_STATIC) || defined(_WIN32)
#define MMCORE_LOCAL
#else
#define MMCORE_LOCAL __attribute__((visibility("hidden")))
#endif
