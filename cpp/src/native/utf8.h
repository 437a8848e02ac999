// UTF-8: code points in, code points out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mmcore::native {

/// Bytes of the valid UTF-8 character that `text` begins with; 0 if it begins with none.
size_t utf8_length(std::string_view text);
/// Whether all of `text` is UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);
/// The code point of a valid character of `length` bytes.
uint32_t utf8_code(std::string_view text, size_t length);
void append_utf8(uint32_t code, std::string& out);
/// Appends `bytes` with U+FFFD for each longest piece that begins a character and breaks off, or a
/// byte that begins none. With `partial` a character that `bytes` may still be the beginning of is
/// left alone; the number of bytes that were used is returned.
size_t append_lossy(std::string_view bytes, bool partial, std::string& out);

}  // namespace mmcore::native
