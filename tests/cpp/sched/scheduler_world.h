// A scheduler whose steps always succeed and whose model always says token 1: what the scheduler
// tests look at is who runs, how far, and what it holds.
#pragma once

#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "sched/admission.h"
#include "sched/scheduler.h"

namespace mmcore::testing {

inline EngineConfig world_config() {
  EngineConfig c;
  c.block_size = 4;
  c.num_blocks = 41;
  c.max_model_len = 1000;
  c.max_num_batched_tokens = 16;
  c.multimodal = true;
  c.vocab_size = 100'000;
  c.hash_key = 1;
  return c;
}

class SchedulerWorld {
 public:
  explicit SchedulerWorld(const EngineConfig& config)
      : config_(resolve_config(config).value()), scheduler(config_) {}

  /// A request of `length` different tokens from `first` on; its id counts from 1.
  Sequence* add(int32_t length, TokenId first = -1, std::vector<MediaItem> media = {},
                int32_t priority = 0) {
    Request request;
    request.prompt_token_ids.resize(static_cast<size_t>(length));
    std::iota(request.prompt_token_ids.begin(), request.prompt_token_ids.end(),
              first >= 0 ? first : static_cast<TokenId>(1000 * (sequences_.size() + 1)));
    request.media = std::move(media);
    request.priority = priority;
    request.sampling.max_tokens = 1000;
    const Status status = check_request(request, config_);
    if (!status.ok()) throw std::invalid_argument(status.message());
    const int64_t rank = scheduler.policy().rank(request);
    sequences_.push_back(std::make_unique<Sequence>(sequences_.size() + 1, std::move(request),
                                                    config_.block_size, config_.logits_size,
                                                    std::span<const TokenId>()));
    sequences_.back()->order.rank = rank;
    scheduler.add(sequences_.back().get());
    return sequences_.back().get();
  }

  /// Selects a step and tells who runs how many tokens, in plan order: "1:4 2:16".
  std::string select(const SelectionScope& scope = {}) {
    scheduler.select(scope);
    std::string text;
    for (const ScheduledEntry& entry : scheduler.entries()) {
      if (!text.empty()) text += ' ';
      text += std::to_string(entry.sequence->order.id) + ":" + std::to_string(entry.num_tokens);
    }
    return text;
  }

  void commit() {
    scheduler.begin_commit();
    for (const ScheduledEntry& entry : scheduler.entries()) {
      scheduler.commit(entry);
      if (entry.sequence->remaining() == 0) entry.sequence->tokens.push_back(1);
    }
    scheduler.end_commit();
  }

  std::string step(const SelectionScope& scope = {}) {
    const std::string text = select(scope);
    commit();
    return text;
  }

  std::string running() const {
    std::string text;
    for (const Sequence* s : scheduler.running()) text += std::to_string(s->order.id) + " ";
    return text;
  }
  std::string waiting() const {
    std::string text;
    for (const auto& [order, s] : scheduler.waiting()) text += std::to_string(order.id) + " ";
    return text;
  }
  int64_t free_blocks() const { return scheduler.resources().kv().pool().num_free(); }

 private:
  EngineConfig config_;
  std::vector<std::unique_ptr<Sequence>> sequences_;

 public:
  Scheduler scheduler;
};

/// An item whose content is named by one byte; 0 is no identity.
inline MediaItem world_item(int32_t offset, int32_t length, uint8_t content,
                            std::vector<uint8_t> mask = {}) {
  MediaItem item{.offset = offset, .length = length, .embed_mask = std::move(mask)};
  item.id.bytes[0] = content;
  return item;
}

}  // namespace mmcore::testing
