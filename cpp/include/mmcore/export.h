// Symbol visibility of the public API. Everything else is compiled with hidden visibility.
#pragma once

#if defined(MMCORE_STATIC)
#define MMCORE_API
#elif defined(_WIN32)
#define MMCORE_API __declspec(dllexport)
#else
#define MMCORE_API __attribute__((visibility("default")))
#endif
