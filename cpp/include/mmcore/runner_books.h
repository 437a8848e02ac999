// What a ModelRunner of a host's own keeps and looks up, whatever it computes: media items from
// accept() to evict, and where a sequence's tokens lie in the KV cache. Header only; a runner may
// as well do without.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mmcore/media.h"
#include "mmcore/model_runner.h"
#include "mmcore/request.h"
#include "mmcore/status.h"

namespace mmcore {

/// The slot (block * block_size + offset) that holds token `i` of sequence `n` of a plan, for i in
/// [0, seq_lens[n]).
inline size_t cache_slot(const StepPlan& plan, size_t n, int32_t i, int32_t block_size) {
  const size_t entry =
      n * static_cast<size_t>(plan.block_table_width) + static_cast<size_t>(i / block_size);
  return static_cast<size_t>(plan.block_tables[entry]) * static_cast<size_t>(block_size) +
         static_cast<size_t>(i % block_size);
}

/// The items of requests: their payloads, which are a Payload (derived from MediaPayload), and what
/// the encoder made of them, an Output.
template <class Payload, class Output>
class ItemBook {
 public:
  /// ModelRunner::accept; kMediaError for an item that carries no Payload.
  Status accept(RequestId request, const Request& content) {
    std::vector<std::shared_ptr<const Payload>> payloads;
    for (const MediaItem& item : content.media) {
      auto payload = std::dynamic_pointer_cast<const Payload>(item.payload);
      if (payload == nullptr)
        return {StatusCode::kMediaError,
                "media[" + std::to_string(payloads.size()) +
                    "].payload is missing, or not what this runner takes."};
      payloads.push_back(std::move(payload));
    }
    if (!payloads.empty()) payloads_[request] = std::move(payloads);
    return {};
  }

  /// ModelRunner::release.
  void release(RequestId request) { payloads_.erase(request); }

  /// A step's work on items: drops the outputs of plan.evict, then keeps `encode(payload)` for each
  /// item of plan.encode.
  template <class Encode>
  void run(const StepPlan& plan, Encode&& encode) {
    for (const EncoderSlot slot : plan.evict) outputs_.erase(slot);
    for (const EncodeItem& item : plan.encode)
      outputs_.insert_or_assign(
          item.slot, encode(*payloads_.at(item.request).at(static_cast<size_t>(item.item_index))));
  }

  /// The output behind an EmbeddingCopy's slot, after run().
  const Output& output(EncoderSlot slot) const { return outputs_.at(slot); }

 private:
  std::unordered_map<RequestId, std::vector<std::shared_ptr<const Payload>>> payloads_;
  std::unordered_map<EncoderSlot, Output> outputs_;
};

}  // namespace mmcore
