// A steady decode does not allocate: counted by replacing the global operator new of the test
// program.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/harness.h"

namespace {

std::atomic<int64_t> allocations = 0;

void* counted(std::size_t size, std::size_t alignment) {
  ++allocations;
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// GCC inlines one operator and not its partner, and then takes them for strangers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace mmcore {
namespace {

class NamingRunner : public ModelRunner {
 public:
  Status execute(const StepPlan& plan, StepResult& result) override {
    result.tokens.resize(plan.sampling.size());
    for (SampledToken& token : result.tokens) token.token = 7;
    return {};
  }
  bool overlaps() const override { return true; }
  Status begin(StepPlan& plan, StepResult& result) override { return execute(plan, result); }
  Status end() override { return {}; }
};

class Allocation : public ::testing::TestWithParam<bool> {};

TEST_P(Allocation, a_steady_decode_step_allocates_nothing) {
  EngineConfig config = testing::small_config();
  config.async_schedule = GetParam();
  config.num_blocks = 2000;
  config.max_model_len = 1000;
  config.max_num_batched_tokens = 1000;
  NamingRunner runner;
  auto engine = Engine::create(config, &runner).value();
  for (int i = 0; i < 20; ++i)
    ASSERT_TRUE(engine->submit(testing::text_request(33, 20 * i, 500)).ok());
  std::vector<RequestOutput> outputs;
  const auto step = [&] {
    ASSERT_TRUE(engine->step().ok());
    engine->take_outputs(outputs);
    ASSERT_EQ(outputs.size(), 20u);
  };
  // At 36 tokens every vector has grown: tokens to 66, blocks to 16, hashes to 16.
  for (int i = 0; i < 5; ++i) step();
  const int64_t before = allocations;
  for (int i = 0; i < 20; ++i) step();
  EXPECT_EQ(allocations - before, 0) << "in 20 steps of 20 sequences, 5 blocks filled by each";
  EXPECT_EQ(engine->metrics().steps_ahead > 20, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Async, Allocation, ::testing::Bool());

}  // namespace
}  // namespace mmcore
