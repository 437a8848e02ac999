#include "kv/block_key.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace mmcore {
namespace {

void append_bytes(std::vector<uint64_t>& words, std::span<const uint8_t> bytes) {
  words.push_back(bytes.size());
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    for (size_t j = i; j < std::min(i + 8, bytes.size()); ++j)
      word |= uint64_t{bytes[j]} << (8 * (j - i));
    words.push_back(word);
  }
}

// One item's share of the block [begin, end): which item, which of its rows, on which tokens.
void append_item(std::vector<uint64_t>& words, const SpanMap& spans, int32_t item, int64_t begin,
                 int64_t end) {
  const int64_t from = std::max(begin, spans.begin_of(item));
  const int64_t to = std::min(end, spans.end_of(item));
  append_bytes(words, spans.item(item).id.bytes);
  words.push_back(static_cast<uint64_t>(from - begin));
  words.push_back(static_cast<uint64_t>(to - begin));
  words.push_back(static_cast<uint64_t>(from - spans.begin_of(item)));
  words.push_back(static_cast<uint64_t>(spans.rows_before(item, from)));
  words.push_back(static_cast<uint64_t>(spans.rows(item)));
  if (spans.rows_before(item, to) - spans.rows_before(item, from) == to - from) {
    words.push_back(0);  // no mask words: all of them are embeddings
    return;
  }
  words.push_back(static_cast<uint64_t>((to - from + 63) / 64));
  for (int64_t p = from; p < to; p += 64) {
    uint64_t word = 0;
    for (int64_t q = p; q < std::min(p + 64, to); ++q)
      word |= uint64_t{spans.is_embedding(item, q)} << (q - p);
    words.push_back(word);
  }
}

}  // namespace

uint64_t BlockHasher::operator()(uint64_t parent_hash, std::span<const TokenId> tokens,
                                 std::span<const uint64_t> extra) const {
  KeyedHash hash(key_);
  hash.add(parent_hash);
  size_t i = 0;
  for (; i + 2 <= tokens.size(); i += 2)
    hash.add(uint64_t{static_cast<uint32_t>(tokens[i])} |
             uint64_t{static_cast<uint32_t>(tokens[i + 1])} << 32);
  if (i < tokens.size()) hash.add(static_cast<uint32_t>(tokens[i]));
  for (const uint64_t word : extra) hash.add(word);
  return hash.finish() & mask_;
}

KeyChain::KeyChain(int32_t block_size, SpanMap spans, std::string salt, uint64_t lora_id)
    : block_size_(block_size),
      spans_(std::move(spans)),
      salt_(std::move(salt)),
      lora_id_(lora_id),
      first_private_block_(std::numeric_limits<int64_t>::max()) {
  for (int32_t i = spans_.size() - 1; i >= 0; --i)
    if (spans_.item(i).id.empty()) first_private_block_ = spans_.begin_of(i) / block_size_;
}

std::span<const TokenId> KeyChain::tokens_of(int64_t i, std::span<const TokenId> tokens) const {
  return tokens.subspan(static_cast<size_t>(i * block_size_), static_cast<size_t>(block_size_));
}

void KeyChain::build_prefix(int64_t i) {
  extra_.clear();
  if (i != 0) return;
  extra_.push_back(lora_id_);
  append_bytes(extra_, {reinterpret_cast<const uint8_t*>(salt_.data()), salt_.size()});
}

std::span<const uint64_t> KeyChain::text_extra(int64_t i) {
  build_prefix(i);
  return extra_;
}

void KeyChain::build_extra(int64_t i) {
  build_prefix(i);
  if (spans_.empty()) return;
  const int64_t begin = i * block_size_;
  const ItemRange items = spans_.overlapping(begin, begin + block_size_);
  for (int32_t item = items.first; item < items.last; ++item)
    append_item(extra_, spans_, item, begin, begin + block_size_);
}

BlockKey KeyChain::key(const BlockHasher& hasher, int64_t i, std::span<const TokenId> tokens,
                       NodeId parent) {
  while (static_cast<int64_t>(hashes_.size()) <= i) {
    const auto next = static_cast<int64_t>(hashes_.size());
    build_extra(next);
    hashes_.push_back(hasher(next == 0 ? 0 : hashes_.back(), tokens_of(next, tokens), extra_));
  }
  build_extra(i);
  return {hashes_[static_cast<size_t>(i)], parent, tokens_of(i, tokens), extra_};
}

}  // namespace mmcore
