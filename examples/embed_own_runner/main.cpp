// A runner of the host's own, complete and as small as can be: replace what is marked "model".
//
// Its model is a sum. Each token puts its value into the KV cache, a picture's placeholder puts its
// pixel's there, and the next token is the sum of all that a sequence has in the cache, modulo 97.
#include <mmcore/engine_loop.h>
#include <mmcore/runner_books.h>

#include <algorithm>
#include <cstdio>

constexpr int32_t kVocab = 97;

struct Pixels final : mmcore::MediaPayload {
  std::vector<int64_t> values;  // one a placeholder
};

class SumRunner final : public mmcore::ModelRunner {
 public:
  explicit SumRunner(const mmcore::EngineConfig& c)
      : block_(c.block_size),
        cache_(static_cast<size_t>(c.num_blocks) * static_cast<size_t>(block_)) {}
  mmcore::Status accept(mmcore::RequestId id, const mmcore::Request& request) override {
    return items_.accept(id, request);
  }
  void release(mmcore::RequestId id) override { items_.release(id); }

  mmcore::Status execute(const mmcore::StepPlan& plan, mmcore::StepResult& result) override {
    // 1. Copy cache blocks; forget encoder outputs, and run the encoder on new items.
    for (const auto& copy : plan.block_copies)
      std::copy_n(&cache_[copy.src * block_], block_, &cache_[copy.dst * block_]);
    items_.run(plan, [](const Pixels& pixels) { return pixels.values; });  // model

    // 2. Embed the T tokens, and overwrite placeholders with rows of the encoder's outputs.
    std::vector<int64_t> rows(plan.token_ids.begin(), plan.token_ids.end());  // model
    for (const auto& copy : plan.embeddings)
      std::copy_n(&items_.output(copy.slot)[copy.src_row], copy.num_rows, &rows[copy.dst_row]);

    // 3. Each layer: first write all rows' keys and values, then attend.
    for (size_t t = 0; t < rows.size(); ++t) cache_[plan.slot_mapping[t]] = rows[t];
    result.tokens.resize(plan.sample_rows.size());
    for (size_t n = 0; n < plan.sequences.size(); ++n) {
      int64_t sum = 0;  // model: over everything that this sequence has in the cache
      for (int32_t i = 0; i < plan.seq_lens[n]; ++i)
        sum += cache_[mmcore::cache_slot(plan, n, i, block_)];
      // 4. The sampled rows; mmcore::ops::sample does it from logits, as plan.sampling asks.
      const int32_t sample_row = plan.sequences[n].sample_row;
      if (sample_row >= 0) result.tokens[sample_row].token = static_cast<int32_t>(sum % kVocab);
    }
    return {};
  }

 private:
  const int32_t block_;
  std::vector<int64_t> cache_;  // [num_blocks, block_size]
  mmcore::ItemBook<Pixels, std::vector<int64_t>> items_;
};

int main() {
  mmcore::EngineConfig config;
  config.num_blocks = 64;
  config.max_model_len = 256;
  config.vocab_size = kVocab;
  config.multimodal = true;
  auto loop = mmcore::EngineLoop::create(config, std::make_shared<SumRunner>(config));
  if (!loop.ok()) return std::fprintf(stderr, "%s\n", loop.status().message().c_str()), 1;

  auto pixels = std::make_shared<Pixels>();
  pixels->values = {20, 30};
  mmcore::Request request;
  request.prompt_token_ids = {5, 0, 0, 7};  // two placeholders
  request.media.push_back({.offset = 1, .length = 2, .payload = pixels});
  request.sampling.max_tokens = 4;
  auto stream = loop.value()->stream(std::move(request));
  if (!stream.ok()) return std::fprintf(stderr, "%s\n", stream.status().message().c_str()), 1;
  const auto outputs = stream.value()->collect();
  if (!outputs.ok()) return std::fprintf(stderr, "%s\n", outputs.status().message().c_str()), 1;
  for (const auto& token : outputs.value().front().new_tokens) std::printf("%d ", token.token);
  return std::puts(""), 0;  // 5 + 20 + 30 + 7 = 62; 124 % 97 = 27; 151 % 97 = 54; 205 % 97 = 11
}
