#include "request_entry.h"

#include <bit>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/shadow_runner.h"
#include "mmcore/engine.h"

namespace mmcore::fuzz {
namespace {

Served counts;

// Reads numbers off the input; at its end all are zero.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t byte() { return at_ < size_ ? data_[at_++] : uint8_t{0}; }
  uint64_t word(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= uint64_t{byte()} << (8 * i);
    return value;
  }
  // Mostly small, sometimes anything: the edges of 32 bits must be reachable by one mutation.
  int32_t number() {
    const uint8_t head = byte();
    if (head < 200) return head % 100;
    if (head < 220) return -static_cast<int32_t>(head - 199);
    return static_cast<int32_t>(static_cast<uint32_t>(word(4)));
  }
  float real() {
    const uint8_t head = byte();
    if (head < 200) return static_cast<float>(head) / 100.0f;
    return std::bit_cast<float>(static_cast<uint32_t>(word(4)));  // infinities and NaN too
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

MediaItem read_item(Bytes& bytes) {
  MediaItem item;
  item.kind = static_cast<MediaKind>(bytes.byte() % 4);
  item.id.bytes[0] = bytes.byte() % 4;
  item.offset = bytes.number();
  item.length = bytes.number();
  const int mask = bytes.byte() % 24;
  for (int i = 0; i < mask && mask < 12; ++i) item.embed_mask.push_back(bytes.byte() % 3);
  return item;
}

SamplingParams read_sampling(Bytes& bytes) {
  SamplingParams s;
  const uint8_t which = bytes.byte();  // the fields that are not what they are by default
  if (which & 1) s.temperature = bytes.real();
  if (which & 2) s.top_p = bytes.real();
  if (which & 4) s.top_k = bytes.number();
  if (which & 8) s.min_p = bytes.real();
  if (which & 16) {
    s.presence_penalty = bytes.real();
    s.frequency_penalty = bytes.real();
    s.repetition_penalty = bytes.real();
  }
  if (which & 32) s.max_tokens = bytes.number();
  if (which & 64) {
    s.min_tokens = bytes.number();
    s.num_logprobs = bytes.number();
    s.num_prompt_logprobs = bytes.number();
  }
  if (which & 128) {
    for (int n = bytes.byte() % 4; n > 0; --n) s.stop_token_ids.push_back(bytes.number());
    for (int n = bytes.byte() % 4; n > 0; --n) {
      const TokenId token = bytes.number();
      s.logit_bias.emplace_back(token, bytes.real());
    }
    for (int n = bytes.byte() % 4; n > 0; --n) s.allowed_token_ids.push_back(bytes.number());
  }
  s.seed = bytes.byte();
  return s;
}

Request read_request(Bytes& bytes) {
  Request request;
  const uint8_t shape = bytes.byte();
  for (int n = bytes.byte() % 80; n > 0; --n)
    request.prompt_token_ids.push_back(shape & 1 ? bytes.number() : bytes.byte() % 8);
  for (int n = shape & 2 ? bytes.byte() % 4 : 0; n > 0; --n)
    request.media.push_back(read_item(bytes));
  if (shape & 4) request.sampling = read_sampling(bytes);
  if (shape & 8) request.priority = bytes.number();
  if (shape & 16) request.cache_salt = std::string(bytes.byte() % 20, 's');
  if (shape & 32) request.lora_id = bytes.word(8);
  if (shape & 64) {
    request.timeout_us = static_cast<int64_t>(bytes.word(8));
    request.queue_timeout_us = static_cast<int64_t>(bytes.word(8));
  }
  return request;
}

EngineConfig small_config() {
  EngineConfig c;
  c.block_size = 4;
  c.num_blocks = 20;
  c.max_model_len = 64;
  c.max_num_batched_tokens = 16;
  c.multimodal = true;
  c.vocab_size = 90;
  c.hash_key = 1;
  c.encoder_budget = 16;
  c.policy = SchedulingPolicy::kPriority;
  c.clock_us = [] { return int64_t{0}; };
  return c;
}

[[noreturn]] void fail(const std::string& what) { throw std::logic_error("request: " + what); }

// One engine for all inputs: what one of them leaves behind, the next one meets.
struct World {
  testing::ShadowRunner runner{small_config()};
  std::unique_ptr<Engine> engine = Engine::create(small_config(), &runner).value();
};

void check(World& world) {
  for (const std::string& line : world.engine->check_invariants()) fail(line);
  for (const std::string& line : world.runner.complaints()) fail("plan: " + line);
}

}  // namespace

Served served() { return counts; }

void run_request(const uint8_t* data, size_t size) {
  static World world;
  Bytes bytes(data, size);
  Request request = read_request(bytes);
  const Result<RequestId> id = world.engine->submit(request);
  if (!id.ok()) {
    ++counts.refused;
    if (id.status().message().empty()) fail("refused without a word");
    return;
  }
  ++counts.accepted;
  world.runner.expect(id.value(), std::move(request));
  for (int steps = 1 + bytes.byte() % 8; steps > 0 && world.engine->has_unfinished(); --steps) {
    if (const auto outcome = world.engine->step(); !outcome.ok())
      fail("step: " + outcome.status().message());
    check(world);
  }
  if (world.engine->has_unfinished() && !world.engine->abort(id.value()).ok())
    fail("abort of a request that runs");
  world.engine->take_outputs();
  check(world);
  const EngineMetrics m = world.engine->metrics();
  if (m.num_running + m.num_waiting != 0 || m.blocks_used != 0 || m.encoder_entries_pinned != 0)
    fail("something is held at the end");
}

}  // namespace mmcore::fuzz
