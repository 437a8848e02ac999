// Times the ways to compute products of few tokens: what plan_few_tokens and
// prefers_few_tokens choose by. A star is what they choose.
// Weights come from memory, not from the L2 cache. "steady": weights are read before the kernel in
// front has ended. WRONG: far from what the tensor core kernel gives.
//
// Usage: mmcore_bench_few_tokens
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "graph_timing.h"
#include "host/device.h"
#include "matrix/few_tokens.h"
#include "matrix/problem.h"
#include "matrix/wgmma_tiles.h"

namespace {

using namespace mmcore;         // NOLINT: a program of its own
using namespace mmcore::bench;  // NOLINT
using namespace mmcore::cuda;   // NOLINT

struct Layer {
  const char* name;
  int64_t n, k;
};
/// A 7B decoder's, and those of smaller ones.
constexpr std::array kLayers = {
    Layer{"qkv", 12288, 4096},    Layer{"o", 4096, 4096},     Layer{"gate_up", 22016, 4096},
    Layer{"down", 4096, 11008},   Layer{"2B o", 1536, 1536},  Layer{"2B qkv", 2048, 1536},
    Layer{"2B down", 1536, 8960}, Layer{"small o", 576, 576}, Layer{"small up", 3072, 576}};
constexpr std::array<int64_t, 4> kTokens = {1, 16, 32, 64};
constexpr int64_t kPool = int64_t{400} << 20;  // bytes: weights of calls in a row lie apart

/// +- 0.5 to 2, without a pattern.
void* noise(int64_t elements) {
  std::vector<uint16_t> values(static_cast<size_t>(elements));
  uint32_t state = 12345;
  for (uint16_t& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<uint16_t>(0x3f00u | (state >> 16 & 0x80ffu));
  }
  void* data = nullptr;
  must(cudaMalloc(&data, values.size() * 2));
  must(cudaMemcpy(data, values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  return data;
}

float widened(uint16_t bits) {
  const uint32_t word = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

std::vector<uint16_t> result(const MatrixProblem& p) {
  std::vector<uint16_t> values(static_cast<size_t>(p.tokens * p.n));
  must(cudaDeviceSynchronize());
  must(cudaMemcpy(values.data(), p.out, values.size() * 2, cudaMemcpyDeviceToHost));
  must(cudaMemset(p.out, 0xff, values.size() * 2));
  return values;
}

/// The root mean square of the difference, relative to that of `want`.
double difference(const std::vector<uint16_t>& got, const std::vector<uint16_t>& want) {
  double errors = 0, squares = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = widened(got[i]) - widened(want[i]);
    errors += error * error;
    squares += double{widened(want[i])} * widened(want[i]);
  }
  return std::sqrt(errors / squares);
}

}  // namespace

int main() {
  const auto found = device_facts({DeviceType::kCuda, 0});
  if (!found.ok() || found.value()->capability != 90) {
    std::puts("no Hopper GPU here: nothing to time");
    return 0;
  }
  const DeviceFacts& facts = *found.value();
  char* pool = static_cast<char*>(noise(kPool / 2));
  void* x = noise(64 * 11008);
  void* out = noise(64 * 22016);
  for (const Layer& layer : kLayers) {
    const int64_t bytes = layer.n * layer.k * 2, sets = kPool / bytes;
    const auto calls = static_cast<int>(std::clamp<int64_t>((120 << 20) / bytes, 16, 256));
    for (const int64_t tokens : kTokens) {
      MatrixProblem p{.dtype = DType::kBFloat16,
                      .x = x,
                      .x_stride = layer.k,
                      .w = pool,
                      .w_stride = layer.k,
                      .bias = nullptr,
                      .out = out,
                      .out_stride = layer.n,
                      .rows = nullptr,
                      .out_rows = tokens,
                      .tokens = tokens,
                      .n = layer.n,
                      .k = layer.k};
      must(run_tensor_core("linear", p, nullptr));
      const std::vector<uint16_t> want = result(p);
      std::printf("%-8s %3lld", layer.name, static_cast<long long>(tokens));
      const auto time = [&](const char* name, bool both, const auto& run) {
        for (const bool steady : {false, true}) {
          if (!steady && !both) continue;
          p.w = pool;
          p.steady_weights = steady;
          must(run(nullptr));
          const double error = difference(result(p), want);
          const double us = graph_us(
              [&](int i, Stream stream) {
                p.w = pool + i % sets * bytes;
                return run(stream_of(stream));
              },
              calls);
          if (steady && both) {
            std::printf("/%.1f", us);
          } else {
            std::printf("  %s %.1f", name, us);
          }
          if (!(error < 1e-2)) std::printf(" WRONG %g", error);
          std::fflush(stdout);
        }
      };
      if (tokens == 1) {
        time("gemv", true, [&](cudaStream_t s) { return run_gemv("linear", p, facts, s); });
      } else if (tokens <= 16) {
        time("skinny", true, [&](cudaStream_t s) { return run_skinny("linear", p, facts, s); });
      } else {
        time("wgmma", true, [&](cudaStream_t s) { return run_wgmma("linear", p, facts, s); });
      }
      for (const int split : {1, 2, 4}) {
        if (split == 4 && layer.n > 2048) continue;
        for (const int room : {227, 200, 113}) {
          for (const int part : {1, 2, 4}) {
            FewTokensPlan plan = plan_few_tokens(p, facts, split, room * 1024);
            plan.early = std::max(1, plan.stages / part);
            char name[32];
            std::snprintf(name, sizeof(name), "%dx%d:%d", split, room, plan.early);
            time(name, part == 1,
                 [&](cudaStream_t s) { return run_few_tokens("linear", p, plan, s); });
          }
        }
      }
      time("*", true, [&](cudaStream_t s) { return run_matrix("linear", p, facts, s); });
      std::puts("");
    }
  }
  return 0;
}
