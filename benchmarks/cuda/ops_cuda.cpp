// Times the CUDA ops from C++ alone: one shape each, microseconds per call beside the floor that
// the device's memory sets. Results are checked by the tests; here a call that fails ends the run.
//
// Usage: mmcore_bench_cuda
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "graph_timing.h"
#include "mmcore/ops.h"

namespace {

using namespace mmcore;         // NOLINT: a program of its own
using namespace mmcore::bench;  // NOLINT

constexpr double kReadBytesPerUs = 3.1e6;  // an H100's device memory, read only

/// Zeros on the first GPU, kept until the program ends.
[[maybe_unused]] TensorView zeros(DType dtype, std::initializer_list<int64_t> dims) {
  TensorView t(nullptr, dtype, dims, Device{DeviceType::kCuda, 0});
  const auto bytes = static_cast<size_t>(t.numel()) * size_of(dtype);
  must(cudaMalloc(&t.data, bytes));
  must(cudaMemset(t.data, 0, bytes));
  return t;
}

void report(const std::string& name, double us, double bytes) {
  const double floor = bytes / kReadBytesPerUs;
  std::printf("%-44s %9.2f us   floor %8.2f us   %5.2fx\n", name.c_str(), us, floor, us / floor);
}

/// What the host has written, on the first GPU.
TensorView device_ints(const std::vector<int32_t>& values, std::initializer_list<int64_t> dims) {
  const TensorView t = zeros(DType::kInt32, dims);
  must(cudaMemcpy(t.data, values.data(), values.size() * sizeof(int32_t), cudaMemcpyHostToDevice));
  return t;
}

/// One query token a sequence, pages of 16 tokens, keys and values cold.
void time_decode(const char* name, int64_t sequences, int64_t keys, int64_t kv_heads, int64_t group,
                 int64_t dim, int multiprocessors) {
  const int64_t pages = (keys + 15) / 16, of_set = sequences * pages;
  const double bytes = 4.0 * static_cast<double>(sequences * keys * kv_heads * dim);
  const auto sets = static_cast<int64_t>(std::clamp(160e6 / bytes + 1.0, 1.0, 64.0));
  std::vector<int32_t> starts, lens(static_cast<size_t>(sequences), static_cast<int32_t>(keys));
  for (int32_t n = 0; n <= sequences; ++n) starts.push_back(n);
  std::vector<int32_t> pages_of(static_cast<size_t>(sets * of_set));
  std::iota(pages_of.begin(), pages_of.end(), 0);
  const ops::AttentionPlanShape shape{.sequences = sequences,
                                      .tokens = sequences,
                                      .max_query_len = 1,
                                      .heads = static_cast<int32_t>(kv_heads * group),
                                      .kv_heads = static_cast<int32_t>(kv_heads),
                                      .head_dim = static_cast<int32_t>(dim),
                                      .multiprocessors = multiprocessors};
  std::vector<int32_t> plan(static_cast<size_t>(ops::attention_plan_words(shape)));
  const auto words = static_cast<int64_t>(plan.size());
  must(ops::plan_paged_attention(TensorView(starts.data(), DType::kInt32, {sequences + 1}),
                                 TensorView(lens.data(), DType::kInt32, {sequences}), shape,
                                 TensorView(plan.data(), DType::kInt32, {words})));
  const TensorView tables = device_ints(pages_of, {sets, sequences, pages});
  ops::PagedAttentionArgs args{
      .q = zeros(DType::kBFloat16, {sequences, kv_heads * group, dim}),
      .k_cache = zeros(DType::kBFloat16, {sets * of_set, 16, kv_heads, dim}),
      .v_cache = zeros(DType::kBFloat16, {sets * of_set, 16, kv_heads, dim}),
      .block_tables = {},
      .query_start = device_ints(starts, {sequences + 1}),
      .seq_lens = device_ints(lens, {sequences}),
      .out = zeros(DType::kBFloat16, {sequences, kv_heads * group, dim}),
      .scale = 0.1f,
      .plan = device_ints(plan, {words}),
      .workspace = zeros(DType::kUInt8, {ops::paged_attention_workspace_bytes(shape)}),
      .max_query_len = 1};
  const double us = graph_us([&](int i, Stream stream) {
    args.block_tables = TensorView(tables.ptr<int32_t>() + i % sets * of_set, DType::kInt32,
                                   {sequences, pages}, tables.device);
    return ops::paged_attention(args, stream);
  });
  report(std::string("paged decode ") + name, us, bytes);
  must(cudaFree(args.k_cache.data));
  must(cudaFree(args.v_cache.data));
}

/// A few tokens, weights cold.
void time_linear(const char* name, int64_t tokens, int64_t n, int64_t k) {
  const double bytes = 2.0 * static_cast<double>(n * k + tokens * (n + k));
  const auto sets = static_cast<int64_t>(160e6 / bytes + 1.0);
  const TensorView weights = zeros(DType::kBFloat16, {sets, n, k});
  const TensorView x = zeros(DType::kBFloat16, {tokens, k});
  const TensorView out = zeros(DType::kBFloat16, {tokens, n});
  const double us = graph_us([&](int i, Stream stream) {
    const TensorView weight(weights.ptr<uint16_t>() + i % sets * n * k, DType::kBFloat16, {n, k},
                            weights.device);
    return ops::linear({.x = x, .weight = weight, .bias = {}, .out = out, .out_rows = {}}, stream);
  });
  report(std::string("linear ") + name, us, bytes);
  must(cudaFree(weights.data));
}

/// LLaVA-1.5's projector, whose limit is arithmetic; the bytes are what it cannot do without.
void time_projector(int64_t pictures) {
  const int64_t tokens = pictures * 576, features = 1024, inner = 4096;
  const ops::VisionProjectorArgs args{
      .x = zeros(DType::kBFloat16, {tokens, features}),
      .w1 = zeros(DType::kBFloat16, {inner, features}),
      .b1 = zeros(DType::kBFloat16, {inner}),
      .w2 = zeros(DType::kBFloat16, {inner, inner}),
      .b2 = zeros(DType::kBFloat16, {inner}),
      .rows = {},
      .out = zeros(DType::kBFloat16, {tokens, inner}),
      .workspace =
          zeros(DType::kUInt8, {ops::vision_projector_workspace_bytes(
                                   tokens, inner, DType::kBFloat16, {DeviceType::kCuda, 0})})};
  const double us =
      graph_us([&](int, Stream stream) { return ops::vision_projector(args, stream); });
  const int64_t elements = tokens * (features + 2 * inner) + inner * (features + inner);
  report("vision projector, " + std::to_string(pictures) + " pictures", us,
         2.0 * static_cast<double>(elements));
}

/// A set of tensors a call, so that inputs are cold; `tokens` rows of a 7B decoder.
void time_rows(int64_t tokens) {
  constexpr int64_t kHidden = 4096, kInner = 11008, kHeads = 32, kDim = 128;
  const int64_t row_bytes = 2 * tokens * kHidden;
  const int64_t sets = std::clamp<int64_t>(160'000'000 / row_bytes, 1, 64);
  const TensorView x = zeros(DType::kBFloat16, {sets, tokens, kHidden});
  const TensorView out = zeros(DType::kBFloat16, {sets, tokens, kHidden});
  const TensorView weight = zeros(DType::kBFloat16, {kHidden});
  const auto set_of = [&](const TensorView& t, int i) {
    return TensorView(t.ptr<uint16_t>() + i % sets * tokens * kHidden, t.dtype, {tokens, kHidden},
                      t.device);
  };
  const auto name = [&](const char* op) { return std::string(op) + ", " + std::to_string(tokens); };
  const auto bytes = static_cast<double>(row_bytes);
  report(name("rms_norm"), graph_us([&](int i, Stream stream) {
           return ops::rms_norm(
               {.x = set_of(x, i), .weight = weight, .residual = {}, .out = set_of(out, i)},
               stream);
         }),
         2 * bytes);
  const auto heads_of = [&](const TensorView& t, int i) {
    return TensorView(set_of(t, i).data, t.dtype, {tokens, kHeads, kDim}, t.device);
  };
  const TensorView cache = zeros(DType::kBFloat16, {2, tokens / 16 + 1, 16, kHeads, kDim});
  const TensorView keys(cache.data, cache.dtype, {tokens / 16 + 1, 16, kHeads, kDim}, cache.device);
  const TensorView positions = zeros(DType::kInt64, {tokens});
  std::vector<int64_t> order(static_cast<size_t>(tokens));
  std::iota(order.begin(), order.end(), 0);
  must(cudaMemcpy(positions.data, order.data(), order.size() * 8, cudaMemcpyHostToDevice));
  const TensorView cos_sin = zeros(DType::kFloat32, {4096, kDim});
  report(name("rope_kv_write"), graph_us([&](int i, Stream stream) {
           return ops::rope_kv_write({.q = heads_of(x, i),
                                      .k = heads_of(out, i),
                                      .v = heads_of(x, i + 1),
                                      .positions = positions,
                                      .cos_sin = cos_sin,
                                      .k_cache = keys,
                                      .v_cache = keys,
                                      .slot_mapping = positions},
                                     stream);
         }),
         7 * bytes);
  const TensorView gates = zeros(DType::kBFloat16, {tokens, 2 * kInner});
  const TensorView products = zeros(DType::kBFloat16, {tokens, kInner});
  report(name("silu_mul"), graph_us([&](int, Stream stream) {
           return ops::activation_mul(gates, ops::Activation::kSilu, products, stream);
         }),
         6.0 * static_cast<double>(tokens * kInner));
  for (const TensorView& t : {x, out, cache, gates, products}) must(cudaFree(t.data));
}

/// Greedy rows, logits cold.
void time_greedy(int64_t rows, int64_t vocab) {
  const int64_t sets = std::clamp<int64_t>(80'000'000 / (rows * vocab), 1, 64);
  const TensorView logits = zeros(DType::kBFloat16, {sets, rows, vocab});
  const TensorView floats = zeros(DType::kFloat32, {rows}), ints = zeros(DType::kInt64, {rows});
  std::vector<int32_t> ones(static_cast<size_t>(rows), 0x3f800000);  // 1.0f
  const TensorView top_p = device_ints(ones, {rows});
  ops::SampleTensorsArgs args{
      .logits = {},
      .temperature = floats,
      .top_p = TensorView(top_p.data, DType::kFloat32, {rows}, top_p.device),
      .min_p = floats,
      .top_k = device_ints(std::vector<int32_t>(static_cast<size_t>(rows), -1), {rows}),
      .seed = ints,
      .counter = ints,
      .tokens = zeros(DType::kInt32, {rows}),
      .workspace = zeros(DType::kUInt8, {ops::sample_tensors_workspace_bytes(rows, vocab)})};
  const double us = graph_us([&](int i, Stream stream) {
    args.logits = TensorView(logits.ptr<uint16_t>() + i % sets * rows * vocab, DType::kBFloat16,
                             {rows, vocab}, logits.device);
    return ops::sample_tensors(args, stream);
  });
  report("greedy, " + std::to_string(rows) + " x " + std::to_string(vocab), us,
         2.0 * static_cast<double>(rows * vocab));
  must(cudaFree(logits.data));
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU here: nothing to time");
    return 0;
  }
  cudaDeviceProp properties{};
  must(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s\n", properties.name);
  const int sms = properties.multiProcessorCount;
  time_decode("32/8 x 128, 1 x 1024", 1, 1024, 8, 4, 128, sms);
  time_decode("32/8 x 128, 32 x 1024", 32, 1024, 8, 4, 128, sms);
  time_decode("32/32 x 128, 32 x 1024", 32, 1024, 32, 1, 128, sms);
  time_decode("9/3 x 64, 8 x 1024", 8, 1024, 3, 3, 64, sms);
  time_linear("1 x 4096 -> 12288", 1, 12288, 4096);
  time_linear("8 x 4096 -> 22016", 8, 22016, 4096);
  time_linear("1 x 11008 -> 4096", 1, 4096, 11008);
  time_projector(1);
  time_projector(8);
  for (const int64_t tokens : {1, 64, 2048}) time_rows(tokens);
  time_greedy(1, 32064);
  time_greedy(256, 32064);
  return 0;
}
