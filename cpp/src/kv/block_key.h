// What identifies the content of a full KV block.
//
//   block i   [ tokens of positions i * size .. (i + 1) * size )   of a sequence
//   parent    node of block i - 1: a number that the prefix index never gives to other content
//   extra     first block: LoRA id and cache salt, length-framed; every block: for each media item
//             that overlaps it the content id, where the item lies and which tokens are embeddings
//
// Equal keys mean equal KV. The hash finds candidates; the index compares the rest (invariant:
// kv.exact).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/keyed_hash.h"
#include "media/span_map.h"
#include "mmcore/types.h"

namespace mmcore {

using NodeId = uint64_t;
inline constexpr NodeId kRootNode = 0;  // the parent of every first block

struct BlockKey {
  uint64_t hash = 0;
  NodeId parent = kRootNode;
  std::span<const TokenId> tokens{};
  std::span<const uint64_t> extra{};
};

/// Hashes keys: chained through the parent's hash, cut to `bits` for tests that force collisions.
class BlockHasher {
 public:
  BlockHasher(const HashKey& key, int bits)
      : key_(key), mask_(bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1) {}
  uint64_t operator()(uint64_t parent_hash, std::span<const TokenId> tokens,
                      std::span<const uint64_t> extra) const;

 private:
  HashKey key_;
  uint64_t mask_;
};

/// The keys of one sequence's blocks. Remembers the hashes, so that looking a prompt up again after
/// a preemption, or a head of line that waits, costs no hashing. One owner, one thread.
class KeyChain {
 public:
  KeyChain() = default;
  KeyChain(int32_t block_size, SpanMap spans, std::string salt, uint64_t lora_id);

  /// Key of block i; `tokens` are the sequence's, at least (i + 1) * block_size of them. The result
  /// is valid until the next call. O(block) when the hash of block i - 1 is known.
  BlockKey key(const BlockHasher& hasher, int64_t i, std::span<const TokenId> tokens,
               NodeId parent);

  /// The extra words of block i if no item overlaps it. Valid until the next call.
  std::span<const uint64_t> text_extra(int64_t i);

  /// Blocks from this one on depend on an item without identity and are never cached.
  int64_t first_private_block() const { return first_private_block_; }
  int32_t block_size() const { return block_size_; }
  const SpanMap& spans() const { return spans_; }
  const std::string& salt() const { return salt_; }
  uint64_t lora_id() const { return lora_id_; }

 private:
  std::span<const TokenId> tokens_of(int64_t i, std::span<const TokenId> tokens) const;
  void build_prefix(int64_t i);
  void build_extra(int64_t i);

  int32_t block_size_ = 0;
  SpanMap spans_;
  std::string salt_;
  uint64_t lora_id_ = 0;
  int64_t first_private_block_ = 0;
  std::vector<uint64_t> hashes_;
  std::vector<uint64_t> extra_;
};

}  // namespace mmcore
