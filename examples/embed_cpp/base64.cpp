#include "base64.h"

#include <array>
#include <string>

namespace service {
namespace {

constexpr std::array<int8_t, 256> make_values() {
  std::array<int8_t, 256> values{};
  values.fill(-1);
  constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < alphabet.size(); ++i)
    values[static_cast<uint8_t>(alphabet[i])] = static_cast<int8_t>(i);
  return values;
}

constexpr std::array<int8_t, 256> kValues = make_values();

}  // namespace

mmcore::Result<std::vector<uint8_t>> decode_base64(std::string_view text) {
  const size_t given = text.size();
  for (int i = 0; i < 2 && given % 4 == 0 && text.ends_with('='); ++i) text.remove_suffix(1);
  if (text.size() % 4 == 1)
    return mmcore::Status::invalid_argument("base64 of " + std::to_string(given) +
                                            " characters is cut off");
  std::vector<uint8_t> bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  uint32_t bits = 0;
  int count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int8_t value = kValues[static_cast<uint8_t>(text[i])];
    if (value < 0)
      return mmcore::Status::invalid_argument("character " + std::to_string(i) + " is no base64");
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes.push_back(static_cast<uint8_t>(bits >> count));
    }
  }
  return bytes;
}

}  // namespace service
