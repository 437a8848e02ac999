// What sequences may hold in a model-based test of the KV layer: a few token sequences that share
// beginnings and differ in tokens, images, where an image lies, salt or adapter.
//
// Equality of content is decided here, without any hash: each prefix has a number, and two prefixes
// have the same number exactly if everything up to their end is the same.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kv/block_key.h"

namespace mmcore::proof {

inline constexpr int kPrivate = -1;  // content that must never be cached

struct Document {
  std::vector<TokenId> tokens;
  std::vector<MediaItem> media;
  std::string salt;
  uint64_t lora_id = 0;
  std::vector<int> prefix;  // by position: number of everything up to and with it
  std::vector<int> block;   // by full block: number of its last prefix, or kPrivate
  KeyChain chain;
};

/// A fault in how documents are turned into keys, to see that it is noticed.
enum class KeyFault { kNone, kNoSalt, kNoMediaOffset, kNoMedia };

class Documents {
 public:
  Documents(uint64_t seed, int32_t block_size, KeyFault fault);

  int size() const { return static_cast<int>(documents_.size()); }
  Document& operator[](int i) { return documents_[static_cast<size_t>(i)]; }
  const Document& operator[](int i) const { return documents_[static_cast<size_t>(i)]; }
  /// Number of positions from the start on in which two documents are the same.
  int64_t agree(int a, int b) const;
  int num_prefixes() const { return static_cast<int>(numbers_.size()); }

 private:
  uint64_t below(uint64_t n) { return random_() % n; }
  Document draw();
  void append_media(Document& document);
  void number(Document& document, int32_t block_size);

  std::mt19937_64 random_;
  std::vector<Document> documents_;
  std::map<std::pair<int, std::string>, int> numbers_;  // (prefix before, what follows) -> prefix
};

}  // namespace mmcore::proof
