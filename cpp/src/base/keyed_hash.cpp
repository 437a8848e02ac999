#include "base/keyed_hash.h"

#include <unistd.h>
#if defined(__linux__)
#include <sys/random.h>
#endif

#include <cerrno>
#include <string>
#include <system_error>

#include "mmcore/status.h"

namespace mmcore {
namespace {

uint64_t mix(uint64_t x) {  // finalizer of splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

HashKey HashKey::from_seed(uint64_t seed) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
  return {mix(seed + kStep), mix(seed + 2 * kStep)};
}

// Not std::random_device: a libstdc++ that is linked statically into a Python extension may meet
// another copy in the process, and its streams and devices then crash.
HashKey HashKey::random() {
  HashKey key{};
  if (getentropy(&key, sizeof(key)) != 0) {
    throw InternalError("the system gives no random bytes: " +
                        std::generic_category().message(errno));
  }
  return key;
}

}  // namespace mmcore
