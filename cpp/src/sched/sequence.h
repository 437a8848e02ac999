// One request while it lives in the engine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_key.h"
#include "kv/block_table.h"
#include "mmcore/request.h"
#include "mmcore/sampling.h"
#include "mmcore/types.h"

namespace mmcore {

/// Place in every queue: smaller first. Arrival order is the order of request ids.
struct QueueOrder {
  int64_t rank = 0;  // from the queue policy
  RequestId id = 0;
  friend auto operator<=>(const QueueOrder&, const QueueOrder&) = default;
};

struct Sequence;

/// The sequences of a request that asked for several.
struct SequenceGroup {
  std::vector<Sequence*> members;  // null: has ended or, but for the first, not been forked yet
  int32_t live = 0;                // have not ended
  bool forked = false;             // all members were made
  bool begun = false;              // a member that is gone, or the first at the fork, has run

  /// Whether member i has ended.
  bool ended(size_t i) const { return members[i] == nullptr && (forked || i == 0); }
};

enum class SequenceState : uint8_t { kWaiting, kRunning, kFinished };

/// Plain data; the scheduler changes queue and resource fields, the engine tokens and results.
///
///   tokens     [ prompt ............ | outputs ... ]
///   position   0            prompt_len           size
///   KV cache   [ computed tokens )[ to be computed )    between steps of a running sequence:
///                                                      computed < size
///
/// With steps in flight, `computed` and `tokens` are what they will be when those have committed: a
/// token that is not known yet is -1.
struct alignas(64) Sequence {
  Sequence(RequestId request_id, Request&& source, int32_t block_size, int32_t logits_size,
           std::span<const TokenId> eos_token_ids);

  /// Another sequence of the same request, before its first step.
  Sequence sibling(int32_t sibling_index) const;

  /// The request's id, which is that of its first sequence.
  RequestId request() const { return order.id - index; }
  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_outputs() const { return size() - prompt_len; }
  int32_t remaining() const { return size() - computed; }
  const SpanMap& spans() const { return chain.spans(); }
  /// Whether the next token is a generated one: no media and no prompt logprobs any more.
  bool decoding() const { return remaining() == 1 && computed >= prompt_len; }

  /// What of a SampleRow stays the same for the sequence's life.
  SampleRow fixed_sample_row() const;
  /// Sets what changes with every output; spans are valid until the tokens change.
  void update_sample_row(SampleRow& row) const;

  // First two cache lines: all that a decode step reads. At 4,096 sequences it is their number that
  // a step costs.
  std::vector<TokenId> tokens;
  QueueOrder order;
  int32_t prompt_len = 0;
  int32_t computed = 0;  // tokens whose KV is in the cache
  int32_t max_tokens = 0;
  int32_t min_tokens = 0;
  int32_t first_live_item = 0;  // media items before it are wholly in the KV cache
  SequenceState state = SequenceState::kWaiting;
  bool ignore_eos : 1 = false;
  bool has_stop_tokens : 1 = false;
  bool first_run_done : 1 = false;     // a step of it was committed
  bool reserved : 1 = false;           // runs with blocks set aside for its whole life
  bool is_one_of_several : 1 = false;  // of a request that has or had a `group`
  bool reads_history : 1 = false;      // sampling its next token needs the tokens before it
  uint8_t in_flight : 2 = 0;           // steps launched and not landed that have a row of it
  uint16_t index = 0;                  // among the request's sequences
  int32_t pending_sample = -1;         // tokens.back() is -1: sample of the newest step in flight
  BlockTable table;
  int32_t num_items = 0;
  int32_t num_cached_tokens = 0;  // prefix hit of the first scheduling
  int32_t num_preemptions = 0;
  int32_t prompt_logprobs_done = 0;  // positions delivered, of prompt_len - 1

  uint64_t admitted_in = 0;        // selection in which it last entered
  SequenceGroup* group = nullptr;  // of a request for several
  int32_t times_passed = 0;        // while it waited, by later ones
  int32_t borrowed = 0;            // blocks of its table that others held when it entered
  std::vector<EncoderSlot> slots;  // by item: the encoder entry that it has pinned, or -1
  KeyChain chain;
  SamplingParams sampling;
  std::vector<TokenId> banned;  // stop tokens, masked out before min_tokens; else empty
};

}  // namespace mmcore
