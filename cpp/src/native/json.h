// JSON as checkpoints hold it: config files, tokenizer.json and the headers of safetensors files.
//
// Stricter than the standard asks for, since what is read here decides about memory: a key twice in
// an object, a value behind the end, invalid UTF-8 and deep nesting are errors with their place.
// Integers keep all 64 bits.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mmcore/status.h"

namespace mmcore::native {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // in the order of the text

  Json() = default;  // null

  /// Reads one value that is the whole of `text`.
  static Result<Json> parse(std::string_view text);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<int64_t>(value_); }
  bool is_number() const { return is_int() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  // Each only if is_...() says so.
  bool as_bool() const { return *std::get_if<bool>(&value_); }
  int64_t as_int() const { return *std::get_if<int64_t>(&value_); }
  double as_double() const {
    return is_int() ? static_cast<double>(as_int()) : *std::get_if<double>(&value_);
  }
  const std::string& as_string() const { return *std::get_if<std::string>(&value_); }
  const Array& as_array() const { return *std::get_if<Array>(&value_); }
  const Object& as_object() const { return *std::get_if<Object>(&value_); }

  /// The member of an object; null (a Json) where there is none or this is no object. O(members).
  const Json& operator[](std::string_view key) const;
  /// "a string", "null" ..., for messages.
  const char* kind() const;

 private:
  friend class JsonReader;
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

}  // namespace mmcore::native
