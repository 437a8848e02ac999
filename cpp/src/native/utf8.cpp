#include "native/utf8.h"

#include <algorithm>

namespace mmcore::native {

namespace {

struct Lead {
  size_t length;      // 0: begins no character
  uint8_t low, high;  // what the second byte may be
};

Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};  // below: overlong
  if (byte == 0xED) return {3, 0x80, 0x9F};  // above: surrogates
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};  // below: overlong
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};  // above: beyond U+10FFFF
  return {0, 0, 0};
}

// Bytes at the beginning of `text` that could belong to one character, and how many it needs.
struct Prefix {
  size_t valid;
  size_t needed;
};

Prefix prefix_of(std::string_view text) {
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {0, 0};
  size_t valid = 1;
  while (valid < lead.length && valid < text.size()) {
    const auto byte = static_cast<uint8_t>(text[valid]);
    const uint8_t low = valid == 1 ? lead.low : 0x80;
    const uint8_t high = valid == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) break;
    ++valid;
  }
  return {valid, lead.length};
}

}  // namespace

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const Prefix prefix = prefix_of(text);
  return prefix.valid == prefix.needed ? prefix.needed : 0;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

uint32_t utf8_code(std::string_view text, size_t length) {
  const auto first = static_cast<uint8_t>(text[0]);
  if (length == 1) return first;
  uint32_t code = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) code = (code << 6) | (static_cast<uint8_t>(text[i]) & 0x3Fu);
  return code;
}

void append_utf8(uint32_t code, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80u | ((code >> shift) & 0x3Fu)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0u | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0u | (code >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0u | (code >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

size_t append_lossy(std::string_view bytes, bool partial, std::string& out) {
  size_t at = 0;
  while (at < bytes.size()) {
    const std::string_view rest = bytes.substr(at);
    const Prefix prefix = prefix_of(rest);
    if (prefix.valid == prefix.needed && prefix.needed > 0) {
      out.append(rest.substr(0, prefix.needed));
      at += prefix.needed;
      continue;
    }
    if (partial && prefix.needed > 0 && prefix.valid == rest.size()) break;
    out += "\xEF\xBF\xBD";
    at += std::max<size_t>(prefix.valid, 1);
  }
  return at;
}

}  // namespace mmcore::native
