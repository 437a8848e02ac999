// A runner of the host's own, complete and as small as can be: replace what stands under "model".
//
// Its model is a sum. Each token puts its value into the KV cache, a picture's placeholder puts its
// pixel's there, and the next token is the sum of all that a sequence has in the cache, modulo 97.
#include <cstdio>
#include <map>
#include <memory>
#include <utility>

#include "mmcore/engine_loop.h"
#include "mmcore/ops.h"

namespace {

constexpr int32_t kVocab = 97;

struct Pixels final : mmcore::MediaPayload {
  explicit Pixels(std::vector<int64_t> v) : values(std::move(v)) {}
  std::vector<int64_t> values;  // one a placeholder
};

class SumRunner final : public mmcore::ModelRunner {
 public:
  explicit SumRunner(const mmcore::EngineConfig& config)
      : block_size_(config.block_size),
        cache_(static_cast<size_t>(config.num_blocks) * static_cast<size_t>(config.block_size)) {}

  // What a step will need of a request's items; the engine forgets it.
  mmcore::Status accept(mmcore::RequestId id, const mmcore::Request& request) override {
    for (const mmcore::MediaItem& item : request.media) {
      const auto* pixels = dynamic_cast<const Pixels*>(item.payload.get());
      if (!pixels) return mmcore::Status::invalid_argument("an item without pixels");
      pixels_[id].push_back(pixels->values);
    }
    return {};
  }

  void release(mmcore::RequestId id) override { pixels_.erase(id); }

  mmcore::Status execute(const mmcore::StepPlan& plan, mmcore::StepResult& result) override {
    // 1. Forget encoder outputs; copy cache blocks; run the encoder on new items.
    for (const mmcore::EncoderSlot slot : plan.evict) encoded_.erase(slot);
    for (const mmcore::BlockCopy& copy : plan.block_copies)
      for (int32_t i = 0; i < block_size_; ++i) at(copy.dst, i) = at(copy.src, i);
    for (const mmcore::EncodeItem& item : plan.encode)
      encoded_[item.slot] =
          pixels_.at(item.request)[static_cast<size_t>(item.item_index)];  // model

    // 2. Embed the T tokens, and overwrite placeholders with rows of the encoder's outputs.
    std::vector<int64_t> rows(plan.token_ids.begin(), plan.token_ids.end());  // model
    for (const mmcore::EmbeddingCopy& copy : plan.embeddings)
      for (int32_t i = 0; i < copy.num_rows; ++i)
        rows[static_cast<size_t>(copy.dst_row + i)] =
            encoded_.at(copy.slot)[static_cast<size_t>(copy.src_row + i)];

    // 3. Each layer: first write all rows' keys and values, then attend. slot_mapping says where.
    for (size_t t = 0; t < rows.size(); ++t)
      cache_[static_cast<size_t>(plan.slot_mapping[t])] = rows[t];

    if (plan.sample_rows.empty()) return {};

    // 4. Logits of the S rows that are sampled, and the sampling itself.
    std::vector<float> logits(plan.sample_rows.size() * kVocab, 0.0f);
    for (size_t n = 0; n < plan.sequences.size(); ++n) {
      const int32_t sample_row = plan.sequences[n].sample_row;
      if (sample_row < 0) continue;  // a chunk that does not reach the newest token
      int64_t sum = 0;               // model: over everything that this sequence has in the cache
      const size_t table = n * static_cast<size_t>(plan.block_table_width);
      for (int32_t i = 0; i < plan.seq_lens[n]; ++i)
        sum += at(plan.block_tables[table + static_cast<size_t>(i / block_size_)], i % block_size_);
      logits[static_cast<size_t>(sample_row * kVocab + sum % kVocab)] = 100.0f;
    }
    const mmcore::TensorView view(logits.data(), mmcore::DType::kFloat32,
                                  {static_cast<int64_t>(plan.sample_rows.size()), kVocab});
    return mmcore::ops::sample(view, plan.sampling, result.tokens, nullptr, {});
  }

 private:
  int64_t& at(mmcore::BlockId block, int32_t offset) {
    return cache_[static_cast<size_t>(block * block_size_ + offset)];
  }

  int32_t block_size_;
  std::vector<int64_t> cache_;  // [num_blocks, block_size]
  std::map<mmcore::RequestId, std::vector<std::vector<int64_t>>> pixels_;
  std::map<mmcore::EncoderSlot, std::vector<int64_t>> encoded_;
};

}  // namespace

int main() {
  mmcore::EngineConfig config;
  config.num_blocks = 64;
  config.max_model_len = 256;
  config.vocab_size = kVocab;
  config.multimodal = true;
  auto loop = mmcore::EngineLoop::create(config, std::make_shared<SumRunner>(config));
  if (!loop.ok()) return std::fprintf(stderr, "%s\n", loop.status().message().c_str()), 1;

  mmcore::Request request;
  request.prompt_token_ids = {5, 0, 0, 7};  // two placeholders
  request.media.resize(1);
  request.media[0].offset = 1;
  request.media[0].length = 2;
  request.media[0].payload = std::make_shared<Pixels>(std::vector<int64_t>{20, 30});
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 4;
  auto stream = loop.value()->stream(std::move(request));
  if (!stream.ok()) return std::fprintf(stderr, "%s\n", stream.status().message().c_str()), 1;
  const auto outputs = stream.value()->collect();
  if (!outputs.ok()) return std::fprintf(stderr, "%s\n", outputs.status().message().c_str()), 1;

  std::vector<mmcore::TokenId> tokens;
  for (const mmcore::SampledToken& token : outputs.value().front().new_tokens)
    tokens.push_back(token.token);
  // 5 + 20 + 30 + 7 = 62; 124 % 97 = 27; 151 % 97 = 54; 205 % 97 = 11 ...
  const bool right = tokens == std::vector<mmcore::TokenId>{62, 27, 54, 11};
  std::puts(right ? "own runner: ok" : "own runner: wrong tokens");
  return right ? 0 : 1;
}
