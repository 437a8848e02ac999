// Layer: kernel. Decode among other calls: behind a writer, from a graph, again, at the end of a
// large cache.
#include <cmath>

#include "attention/decode_case.h"

namespace mmcore::cuda {
namespace {

/// A row of this step's keys that is read before rope_kv_write has written it is NaN.
TEST_F(Decode, ReadsTheNewestKeysBehindTheirWriter) {
  Rng rng(11);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 128;
  c.kv_heads = 4;
  c.query_lens.assign(24, 1);
  for (size_t n = 0; n < c.query_lens.size(); ++n) {
    c.key_lens.push_back(1 + static_cast<int64_t>(n) * 17);
  }
  AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache, 1);
  batch.set_plan(data.query_start.view(), cache.seq_lens.view(), true);
  const int64_t tokens = c.queries(), row = c.kv_heads * c.head_dim;
  HostTensor k(c.dtype, {tokens, c.kv_heads, c.head_dim}), v = k, slots(DType::kInt64, {tokens});
  HostTensor unwritten_k = cache.k, unwritten_v = cache.v;
  for (int64_t n = 0, keys = 0; n < tokens; ++n) {
    const int64_t last = c.key_lens[static_cast<size_t>(n)] - 1;
    const int64_t block =
        static_cast<int64_t>(cache.tables.get(n * cache.tables.shape()[1] + last / c.block_size));
    const int64_t slot = block * c.block_size + last % c.block_size;
    slots.set(n, static_cast<double>(slot));
    for (int64_t e = 0; e < row; ++e) {
      k.set(n * row + e, data.k.get((keys + last) * row + e));
      v.set(n * row + e, data.v.get((keys + last) * row + e));
      unwritten_k.set(slot * row + e, NAN);
      unwritten_v.set(slot * row + e, NAN);
    }
    keys += last + 1;
  }
  const Mirror new_k(k), new_v(v), new_slots(slots), no_k(unwritten_k), no_v(unwritten_v);
  const auto forget = [](const Mirror& to, const Mirror& from) {
    ASSERT_EQ(cudaMemcpyAsync(to.view().data, from.view().data,
                              static_cast<size_t>(from.view().numel()) * 2,
                              cudaMemcpyDeviceToDevice, nullptr),
              cudaSuccess);
  };
  const std::vector<double> expected = attention_oracle(c, data);
  for (int run = 0; run < 30; ++run) {
    forget(batch.k, no_k);
    forget(batch.v, no_v);
    const Status written = ops::rope_kv_write({.q = {},
                                               .k = new_k.view(),
                                               .v = new_v.view(),
                                               .positions = {},
                                               .cos_sin = {},
                                               .k_cache = batch.k.view(),
                                               .v_cache = batch.v.view(),
                                               .slot_mapping = new_slots.view()});
    ASSERT_TRUE(written.ok()) << written.message();
    const Status status = ops::paged_attention(batch.args);
    ASSERT_TRUE(status.ok()) << status.message();
    batch.out.fetch(data.out);
    ops::testing::expect_close(data.out, expected);
    ASSERT_FALSE(HasFailure()) << "run " << run;
  }
}

TEST_F(Decode, GivesTheSameBitsEachTime) {
  Rng rng(6);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 128;
  c.kv_heads = 2;
  c.group = 4;
  c.query_lens = {1, 1, 2, 1};
  c.key_lens = {1500, 40, 2300, 513};
  AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache);
  std::vector<std::byte> first;
  for (int run = 0; run < 20; ++run) {
    batch.set_plan(data.query_start.view(), cache.seq_lens.view(), run % 2 == 1);
    ASSERT_TRUE(ops::paged_attention(batch.args).ok());
    batch.out.fetch(data.out);
    if (run == 0) first = data.out.bytes();
    ASSERT_EQ(data.out.bytes(), first) << "run " << run;
  }
}

/// One recording, replayed after the plan has been replaced by one for other lengths.
TEST_F(Decode, OneGraphServesOtherLengths) {
  Rng rng(7);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 64;
  c.kv_heads = 2;
  c.group = 3;
  c.query_lens = {1, 1, 1, 1};
  c.key_lens = {700, 90, 1600, 333};
  AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache, 1);
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t recorded = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  const Status status = ops::paged_attention(batch.args, {stream});
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(cudaGraphInstantiate(&recorded, graph, 0), cudaSuccess);
  for (const std::vector<int64_t>& lens :
       {c.key_lens, {700, 1, 17, 333}, {16, 90, 1, 1}, {1, 64, 1600, 300}}) {
    AttentionCase shorter = c;
    for (size_t n = 0; n < lens.size(); ++n) shorter.key_lens[n] = lens[n];
    // The same keys, as many as there are now.
    HostTensor now(DType::kInt32, {4});
    AttentionData view_of(shorter, rng);
    int64_t row = 0, kept = 0;
    for (size_t n = 0; n < lens.size(); row += c.key_lens[n++]) {
      now.set(static_cast<int64_t>(n), static_cast<double>(lens[n]));
      for (int64_t j = 0; j < lens[n]; ++j, ++kept) {
        for (int64_t e = 0; e < c.kv_heads * c.head_dim; ++e) {
          const int64_t width = c.kv_heads * c.head_dim;
          view_of.k.set(kept * width + e, data.k.get((row + j) * width + e));
          view_of.v.set(kept * width + e, data.v.get((row + j) * width + e));
        }
      }
    }
    view_of.q = data.q;
    batch.set_plan(data.query_start.view(), now.view());
    ASSERT_EQ(cudaGraphLaunch(recorded, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    batch.out.fetch(data.out);
    ops::testing::expect_close(data.out, attention_oracle(shorter, view_of));
  }
  cudaGraphExecDestroy(recorded);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

/// Offsets beyond 2^31 elements: the sequence's blocks are the last ones of a cache of 4.6 GB.
TEST_F(Decode, ReachesTheEndOfALargeCache) {
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  if (free < (size_t{11} << 30)) GTEST_SKIP() << "needs 11 GiB of free device memory";
  Rng rng(8);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 128;
  c.kv_heads = 8;
  c.query_lens = {1};
  c.key_lens = {100};
  AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache, 1);
  const int64_t blocks = 140000, row = 16 * 8 * 128, few = cache.k.shape()[0];
  const DeviceTensor k(DType::kBFloat16, {blocks, 16, 8, 128});
  const DeviceTensor v(DType::kBFloat16, {blocks, 16, 8, 128});
  const auto copy = [&](const DeviceTensor& to, const TensorView& from) {
    ASSERT_EQ(cudaMemcpy(to.view().ptr<uint16_t>() + (blocks - few) * row, from.data,
                         static_cast<size_t>(few * row) * 2, cudaMemcpyDeviceToDevice),
              cudaSuccess);
  };
  copy(k, batch.k.view());
  copy(v, batch.v.view());
  HostTensor tables(DType::kInt32, cache.tables.shape());
  for (int64_t i = 0; i < tables.numel(); ++i) {
    tables.set(i, cache.tables.get(i) + static_cast<double>(blocks - few));
  }
  const Mirror far_tables(tables);
  batch.args.k_cache = k;
  batch.args.v_cache = v;
  batch.args.block_tables = far_tables;
  const Status status = ops::paged_attention(batch.args);
  ASSERT_TRUE(status.ok()) << status.message();
  batch.out.fetch(data.out);
  ops::testing::expect_close(data.out, attention_oracle(c, data));
}

TEST_F(Decode, NamesWhatIsMissing) {
  Rng rng(9);
  AttentionCase c;
  c.query_lens = {1};
  c.key_lens = {10};
  const AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  const GpuBatch batch(c, data, cache);
  const auto refusal = [](const ops::PagedAttentionArgs& args) {
    return ops::paged_attention(args).message();
  };
  ops::PagedAttentionArgs args = batch.args;
  args.plan = {};
  EXPECT_NE(refusal(args).find("plan is absent"), std::string::npos) << refusal(args);
  EXPECT_NE(refusal(args).find("plan_paged_attention"), std::string::npos) << refusal(args);
  args = batch.args;
  args.workspace.shape[0] = 100;
  EXPECT_NE(refusal(args).find("paged_attention_workspace_bytes"), std::string::npos);
  args = batch.args;
  args.plan.shape[0] = 100;
  EXPECT_NE(refusal(args).find("attention_plan_words"), std::string::npos);
}

}  // namespace
}  // namespace mmcore::cuda
