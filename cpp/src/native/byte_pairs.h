// Byte-pair encoding of words, and the alphabet that stands for bytes in vocabularies.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mmcore/types.h"

namespace mmcore::native {

/// The printable character that a vocabulary writes for a byte.
std::string character_of_byte(uint8_t byte);
/// The bytes that an entry of a vocabulary stands for: those of its characters, or, where one is
/// not of the alphabet, the entry itself.
std::string bytes_of_entry(std::string_view entry);

class BytePairs {
 public:
  void set_byte(uint8_t byte, TokenId id) { bytes_[byte] = id; }
  /// `left` next to `right` becomes `merged`; of several the one with the smallest rank first.
  void add_merge(TokenId left, TokenId right, int32_t rank, TokenId merged);

  /// Appends the tokens of a word. O(n log n) for n bytes.
  void encode(std::string_view word, std::vector<TokenId>& out) const;

 private:
  struct Merge {
    int32_t rank;
    TokenId merged;
  };
  const Merge* find(TokenId left, TokenId right) const;

  std::array<TokenId, 256> bytes_{};
  std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace mmcore::native
