// Typed access to the members of a config file's object. The first thing that is wrong is kept.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "mmcore/ops.h"
#include "mmcore/status.h"
#include "native/json.h"

namespace mmcore::native {

/// Sizes in config files: nothing that is multiplied from a few of them overflows 64 bits.
inline constexpr int64_t kMaxSize = 1 << 20;

class ConfigReader {
 public:
  /// `where` names the object in messages, such as "config.json: text_config".
  ConfigReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  /// A missing or null member gives the default; one of another type or outside of the bounds is an
  /// error, and gives the default, too.
  int32_t size(const char* key, int32_t otherwise, int64_t low = 1, int64_t high = kMaxSize);
  float number(const char* key, double otherwise);
  double number_of(const char* key, double otherwise);
  bool flag(const char* key, bool otherwise);
  std::string text(const char* key, const std::string& otherwise);
  ops::Activation activation(const char* key, const std::string& otherwise);

  bool has(const char* key) const { return !object_[key].is_null(); }
  const Json& object() const { return object_; }
  const Json& at(const char* key) const { return object_[key]; }
  const std::string& where() const { return where_; }

  void fail(const std::string& what);
  const Status& status() const { return status_; }

 private:
  const Json& object_;
  std::string where_;
  Status status_;
};

/// Reads a JSON file whose value is an object; kNotFound if there is none.
Result<Json> read_config(const std::string& folder, const std::string& name);

}  // namespace mmcore::native
