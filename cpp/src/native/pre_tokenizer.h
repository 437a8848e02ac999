// Splits text into the words that byte-level BPE works on, as GPT-2's pattern does:
//
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
#pragma once

#include <string_view>
#include <vector>

namespace mmcore::native {

/// The words of `text`, which is UTF-8; joined they are the text.
std::vector<std::string_view> split_words(std::string_view text);

}  // namespace mmcore::native
