// Objects behind the handles of c_api.h.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace mmcore::c_api {

enum class HandleKind : uint64_t { kEngine = 1, kRunner = 2, kRequest = 3, kPayload = 4 };

//   handle   kind (8 bits) | number (56 bits), which counts up and is never used again
//
// So a handle that was destroyed, made up or of another kind is found nowhere. Whoever looks one up
// keeps the object while using it, whatever other threads destroy.
template <class T, HandleKind kKind>
class HandleTable {
 public:
  /// The one of this kind. It is never destroyed: threads may outlive static destructors.
  static HandleTable& instance() {
    static auto* const table = new HandleTable();
    return *table;
  }

  uint64_t add(std::shared_ptr<T> object) {
    const std::scoped_lock lock(mutex_);
    const uint64_t handle = static_cast<uint64_t>(kKind) << 56 | ++last_;
    objects_.emplace(handle, std::move(object));
    return handle;
  }
  /// Null if there is none.
  std::shared_ptr<T> find(uint64_t handle) const {
    const std::scoped_lock lock(mutex_);
    const auto it = objects_.find(handle);
    return it == objects_.end() ? nullptr : it->second;
  }
  /// Takes the object out; null if there is none, or another thread took it.
  std::shared_ptr<T> take(uint64_t handle) {
    const std::scoped_lock lock(mutex_);
    auto node = objects_.extract(handle);
    return node ? std::move(node.mapped()) : nullptr;
  }

 private:
  HandleTable() = default;

  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<T>> objects_;
  uint64_t last_ = 0;
};

}  // namespace mmcore::c_api
