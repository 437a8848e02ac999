#include "completion.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "base64.h"

namespace service {
namespace {

using mmcore::Result;
using mmcore::Status;
using nlohmann::json;

/// Carries the message of one wrong field out of the reading below.
struct Wrong {
  std::string what;
};

[[noreturn]] void wrong(const std::string& name, const char* expected, const json& value) {
  throw Wrong{"\"" + name + "\" must be " + expected + ", not " + value.type_name()};
}

bool boolean(const std::string& name, const json& value) {
  if (!value.is_boolean()) wrong(name, "true or false", value);
  return value.get<bool>();
}

float number(const std::string& name, const json& value) {
  if (!value.is_number()) wrong(name, "a number", value);
  return value.get<float>();
}

template <class T>
T integer(const std::string& name, const json& value) {
  if (!value.is_number_integer()) wrong(name, "an integer", value);
  if (value.is_number_unsigned()) {
    if (value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<T>::max()))
      throw Wrong{"\"" + name + "\" is too large"};
  } else if (std::numeric_limits<T>::min() == 0 ||
             value.get<int64_t>() < static_cast<int64_t>(std::numeric_limits<T>::min())) {
    throw Wrong{"\"" + name + "\" is too small"};
  }
  return value.get<T>();
}

std::string text(const std::string& name, const json& value) {
  if (!value.is_string()) wrong(name, "a string", value);
  return value.get<std::string>();
}

std::vector<std::string> texts(const std::string& name, const json& value, size_t most) {
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_array()) wrong(name, "a string or an array of strings", value);
  if (value.size() > most)
    throw Wrong{"\"" + name + "\" has " + std::to_string(value.size()) + " entries; at most " +
                std::to_string(most) + " are allowed"};
  std::vector<std::string> out;
  for (const json& entry : value) out.push_back(text(name, entry));
  return out;
}

std::vector<uint8_t> image(std::string_view given) {
  if (given.starts_with("data:")) {
    const size_t comma = given.find(";base64,");
    if (comma == std::string_view::npos) throw Wrong{"a data: URL must hold base64"};
    given.remove_prefix(comma + 8);
  } else if (given.starts_with("http:") || given.starts_with("https:")) {
    throw Wrong{"pictures are not fetched: send them as base64 or as a data: URL"};
  }
  auto bytes = decode_base64(given);
  if (!bytes.ok()) throw Wrong{"\"images\": " + bytes.status().message()};
  return std::move(bytes).value();
}

void read_field(const std::string& name, const json& value, const CompletionLimits& limits,
                Completion& out) {
  mmcore::SamplingParams& sampling = out.sampling;
  if (name == "prompt") {
    out.prompt = text(name, value);
  } else if (name == "images") {
    for (const std::string& given : texts(name, value, limits.max_images))
      out.image_files.push_back(image(given));
  } else if (name == "stop") {
    out.stop = texts(name, value, limits.max_stop);
    for (const std::string& stop : out.stop)
      if (stop.empty()) throw Wrong{"\"stop\" must not hold an empty string"};
  } else if (name == "stream") {
    out.stream = boolean(name, value);
  } else if (name == "return_token_ids") {
    out.return_token_ids = boolean(name, value);
  } else if (name == "ignore_eos") {
    sampling.ignore_eos = boolean(name, value);
  } else if (name == "max_tokens") {
    sampling.max_tokens = integer<int32_t>(name, value);
  } else if (name == "min_tokens") {
    sampling.min_tokens = integer<int32_t>(name, value);
  } else if (name == "top_k") {
    sampling.top_k = integer<int32_t>(name, value);
  } else if (name == "seed") {
    sampling.seed = integer<uint64_t>(name, value);
  } else if (name == "temperature") {
    sampling.temperature = number(name, value);
  } else if (name == "top_p") {
    sampling.top_p = number(name, value);
  } else if (name == "min_p") {
    sampling.min_p = number(name, value);
  } else if (name == "presence_penalty") {
    sampling.presence_penalty = number(name, value);
  } else if (name == "frequency_penalty") {
    sampling.frequency_penalty = number(name, value);
  } else if (name == "repetition_penalty") {
    sampling.repetition_penalty = number(name, value);
  } else if (name == "n") {
    if (integer<int32_t>(name, value) != 1) throw Wrong{"\"n\" must be 1"};
  } else if (name != "model" && name != "user") {  // taken, as clients send them; one model is here
    throw Wrong{"unknown name \"" + name + "\""};
  }
}

}  // namespace

Result<Completion> parse_completion(std::string_view body, const CompletionLimits& limits) {
  const json object = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return Status::invalid_argument("the body must be a JSON object");
  if (!object.contains("prompt")) return Status::invalid_argument("\"prompt\" is missing");
  Completion out;
  out.sampling.seed = std::random_device{}();
  try {
    for (const auto& [name, value] : object.items()) read_field(name, value, limits, out);
  } catch (const Wrong& error) {
    return Status::invalid_argument(error.what);
  }
  return out;
}

}  // namespace service
