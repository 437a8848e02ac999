// The engine with a shadow model: requests from submit to their last token.
#include "mmcore/engine.h"

#include <gtest/gtest.h>

#include "engine/shadow_runner.h"

namespace mmcore {
namespace {

using testing::reference_tokens;
using testing::ShadowRunner;

TEST(Engine, smoke) {
  EngineConfig c;
  c.block_size = 4;
  c.num_blocks = 16;
  c.max_model_len = 64;
  c.max_num_batched_tokens = 8;
  c.vocab_size = 100;
  ShadowRunner runner(c);
  auto made = Engine::create(c, &runner);
  ASSERT_TRUE(made.ok());
  Engine& engine = *made.value();
  std::map<RequestId, Request> reqs;
  std::map<RequestId, std::vector<TokenId>> got;
  for (int i = 0; i < 6; ++i) {
    Request r;
    for (int k = 0; k < 10 + i; ++k) r.prompt_token_ids.push_back(k < 8 ? k : k + i);
    r.sampling.max_tokens = 12;
    auto id = engine.submit(r);
    ASSERT_TRUE(id.ok()) << id.status().message();
    reqs[id.value()] = r;
    runner.expect(id.value(), r);
  }
  while (engine.has_unfinished()) {
    auto out = engine.step();
    ASSERT_TRUE(out.ok()) << out.status().message();
    for (auto& v : engine.check_invariants()) ADD_FAILURE() << v;
    for (auto& o : engine.take_outputs())
      for (auto& t : o.new_tokens) got[o.id].push_back(t.token);
  }
  for (auto& [id, r] : reqs) EXPECT_EQ(got[id], reference_tokens(r, id, 100, {}, 12));
  for (auto& s : runner.complaints()) ADD_FAILURE() << s;
  auto m = engine.metrics();
  printf("steps %d preempt %d hit %d copies %d\n", (int)m.steps, (int)m.preemptions,
         (int)m.prefix_tokens_hit, (int)m.block_copies);
}

}  // namespace
}  // namespace mmcore
