// One recorded step of a random test. Its numbers are drawn before anything is known of the state
// and are read modulo what there is, so any part of a sequence is a sequence too and can be
// replayed while it is being shrunk.
#pragma once

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace mmcore::proof {

struct Operation {
  uint8_t kind = 0;
  uint8_t a = 0;
  uint8_t b = 0;
  uint8_t c = 0;
  friend bool operator==(const Operation&, const Operation&) = default;
};

inline Operation draw_operation(std::mt19937_64& random) {
  const uint64_t bits = random();
  const auto byte = [bits](int i) { return static_cast<uint8_t>(bits >> (8 * i)); };
  return {byte(0), byte(1), byte(2), byte(3)};
}

/// Two hexadecimal digits a number, one word an operation: "00010203 1f000000".
inline std::string to_text(const std::vector<Operation>& operations) {
  std::string text;
  for (const Operation& o : operations) {
    char word[12];
    std::snprintf(word, sizeof(word), "%02x%02x%02x%02x", o.kind, o.a, o.b, o.c);
    text += text.empty() ? "" : " ";
    text += word;
  }
  return text;
}

/// The operations that to_text() wrote; false if the text is something else.
inline bool from_text(const std::string& text, std::vector<Operation>& operations) {
  operations.clear();
  for (size_t at = 0; at < text.size();) {
    if (text[at] == ' ') {
      ++at;
      continue;
    }
    unsigned kind = 0;
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    int length = 0;
    if (std::sscanf(text.c_str() + at, "%2x%2x%2x%2x%n", &kind, &a, &b, &c, &length) != 4 ||
        length != 8)
      return false;
    operations.push_back({static_cast<uint8_t>(kind), static_cast<uint8_t>(a),
                          static_cast<uint8_t>(b), static_cast<uint8_t>(c)});
    at += 8;
  }
  return true;
}

}  // namespace mmcore::proof
