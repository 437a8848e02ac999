#include "native/config_reader.h"

#include <cmath>
#include <utility>

#include "native/mapped_file.h"

namespace mmcore::native {

namespace {

struct NamedActivation {
  const char* name;
  ops::Activation kind;
};
// Names as transformers has them.
constexpr NamedActivation kActivations[] = {
    {"gelu", ops::Activation::kGeluErf},         {"gelu_new", ops::Activation::kGeluTanh},
    {"gelu_fast", ops::Activation::kGeluTanh},   {"gelu_pytorch_tanh", ops::Activation::kGeluTanh},
    {"quick_gelu", ops::Activation::kGeluQuick}, {"silu", ops::Activation::kSilu},
    {"swish", ops::Activation::kSilu},           {"relu", ops::Activation::kRelu},
};

}  // namespace

void ConfigReader::fail(const std::string& what) {
  if (status_.ok()) status_ = Status::invalid_argument(where_ + ": " + what);
}

int32_t ConfigReader::size(const char* key, int32_t otherwise, int64_t low, int64_t high) {
  const Json& value = object_[key];
  if (value.is_null()) return otherwise;
  if (value.is_int() && value.as_int() >= low && value.as_int() <= high)
    return static_cast<int32_t>(value.as_int());
  fail(std::string(key) + " is " +
       (value.is_int() ? std::to_string(value.as_int()) : std::string(value.kind())) +
       ", expected an integer from " + std::to_string(low) + " to " + std::to_string(high));
  return otherwise;
}

double ConfigReader::number_of(const char* key, double otherwise) {
  const Json& value = object_[key];
  if (value.is_null()) return otherwise;
  if (value.is_number() && std::isfinite(value.as_double())) return value.as_double();
  fail(std::string(key) + " is " + value.kind() + ", expected a number");
  return otherwise;
}

float ConfigReader::number(const char* key, double otherwise) {
  return static_cast<float>(number_of(key, otherwise));
}

bool ConfigReader::flag(const char* key, bool otherwise) {
  const Json& value = object_[key];
  if (value.is_null()) return otherwise;
  if (value.is_bool()) return value.as_bool();
  fail(std::string(key) + " is " + value.kind() + ", expected true or false");
  return otherwise;
}

std::string ConfigReader::text(const char* key, const std::string& otherwise) {
  const Json& value = object_[key];
  if (value.is_null()) return otherwise;
  if (value.is_string()) return value.as_string();
  fail(std::string(key) + " is " + value.kind() + ", expected a string");
  return otherwise;
}

ops::Activation ConfigReader::activation(const char* key, const std::string& otherwise) {
  const std::string name = text(key, otherwise);
  for (const NamedActivation& known : kActivations)
    if (name == known.name) return known.kind;
  fail(std::string(key) + " '" + name + "' is not supported");
  return ops::Activation::kNone;
}

Result<Json> read_config(const std::string& folder, const std::string& name) {
  const Result<MappedFile> file = MappedFile::open(folder + "/" + name);
  if (!file.ok()) return file.status();
  Result<Json> parsed = Json::parse(file.value().text());
  if (!parsed.ok()) return Status::invalid_argument(name + ": " + parsed.status().message());
  if (!parsed.value().is_object())
    return Status::invalid_argument(name + ": it is " + parsed.value().kind() +
                                    ", expected an object");
  return parsed;
}

}  // namespace mmcore::native
