// Times paged_attention and varlen_attention and prints GFLOP/s and GB/s of keys and values.
//
//   mmcore_bench_ops_attention [--isa NAME] [--threads N] [--seconds S] [--only TEXT] [--dtype
//   NAME]
//
// --clock cpu counts the processor time of all threads instead of the time that passes: with one
// thread, what a busy machine would show if it were idle.
// Decodes take their cache in turn from enough copies to be read from memory, as the layers of a
// model do. The last query of every shape is compared with the reference before it is timed.
#include <time.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "mmcore/ops.h"
#include "tensor/half.h"
#include "timing.h"

namespace mmcore::bench {
namespace {

struct Shape {
  const char* name;
  int64_t sequences, heads, kv_heads, queries, keys, head_dim;
  bool paged;  // else contiguous and not causal
};

constexpr Shape kShapes[] = {
    {"encoder 576, 16 heads", 1, 16, 16, 576, 576, 64, false},
    {"encoder 1024, 16 heads", 1, 16, 16, 1024, 1024, 72, false},
    {"encoder 4 x 256, 12 heads", 4, 12, 12, 256, 256, 64, false},
    {"prefill 128", 1, 9, 3, 128, 128, 64, true},
    {"prefill 512", 1, 9, 3, 512, 512, 64, true},
    {"prefill 2048", 1, 32, 8, 2048, 2048, 128, true},
    {"chunk 256 of 4096", 1, 32, 8, 256, 4096, 128, true},
    {"decode 1 x 256", 1, 9, 3, 1, 256, 64, true},
    {"decode 1 x 4096", 1, 32, 8, 1, 4096, 128, true},
    {"decode 8 x 1024", 8, 9, 3, 1, 1024, 64, true},
    {"decode 32 x 192", 32, 9, 3, 1, 192, 64, true},
    {"decode 32 x 1024, 1 row a head", 32, 16, 16, 1, 1024, 64, true},
};
constexpr int64_t kBlockSize = 16;

struct Options {
  std::string isa, only, dtype, clock;
  double seconds = 0.5;
  int threads = 0;
};

int64_t multiply_adds(const Shape& s) {
  const int64_t pairs =
      s.paged ? s.queries * s.keys - s.queries * (s.queries - 1) / 2 : s.queries * s.keys;
  return 2 * s.sequences * s.heads * s.head_dim * pairs;
}

double cpu_us() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return 1e6 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_nsec);
}

template <class T>
std::vector<T> random_values(int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> some(4096);
  for (float& x : some) x = normal(random);
  std::vector<T> values(static_cast<size_t>(n));
  for (T& x : values) x = T(some[random() % some.size()]);
  return values;
}

template <class T>
class Batch {
 public:
  explicit Batch(const Shape& s) : s_(s) {
    const int64_t rows = (s.keys + kBlockSize - 1) / kBlockSize * kBlockSize * s.sequences;
    const int64_t kv = rows * s.kv_heads * s.head_dim;
    const int64_t bytes = 2 * kv * static_cast<int64_t>(sizeof(T));
    const int64_t copies =
        s.queries > 1 ? 1 : std::min<int64_t>(64, (int64_t{256} << 20) / bytes + 1);
    q_ = random_values<T>(s.sequences * s.queries * s.heads * s.head_dim, 1);
    out_.resize(q_.size());
    for (int64_t i = 0; i < copies; ++i) {
      k_.push_back(random_values<T>(kv, 2));
      v_.push_back(random_values<T>(kv, 3));
    }
    for (int64_t b = 0; b < rows / kBlockSize; ++b) {  // a permutation: 7919 is prime
      tables_.push_back(static_cast<int32_t>(b * 7919 % (rows / kBlockSize)));
    }
    for (int64_t n = 0; n <= s.sequences; ++n) {
      query_start_.push_back(static_cast<int32_t>(n * s.queries));
      key_start_.push_back(static_cast<int32_t>(n * s.keys));
      if (n < s.sequences) lens_.push_back(static_cast<int32_t>(s.keys));
    }
  }

  size_t copies() const { return k_.size(); }
  const std::vector<T>& out() const { return out_; }

  Status run(size_t copy) {
    return run_rows(copy, q_.data(), out_.data(), query_start_, s_.sequences);
  }

  /// The last query of the first sequence against the reference; its position is the last key's.
  bool is_right() {
    const int64_t width = s_.heads * s_.head_dim;
    std::vector<T> expected(static_cast<size_t>(width));
    const ops::CpuIsa isa = ops::cpu_isa();
    if (!run(0).ok() || !ops::set_cpu_isa(ops::CpuIsa::kReference).ok()) return false;
    const T* row = q_.data() + (s_.queries - 1) * width;
    if (!run_rows(0, const_cast<T*>(row), expected.data(), {0, 1}, 1).ok()) return false;
    if (!ops::set_cpu_isa(isa).ok()) return false;
    for (int64_t i = 0; i < width; ++i) {
      const float got = float(out_[static_cast<size_t>((s_.queries - 1) * width + i)]);
      const float want = float(expected[static_cast<size_t>(i)]);
      if (!(std::abs(got - want) <= (sizeof(T) == 4 ? 1e-5f : 1e-2f))) return false;
    }
    return true;
  }

 private:
  Status run_rows(size_t copy, T* q, T* out, std::vector<int32_t> starts, int64_t sequences) {
    const DType dtype = dtype_of<T>;
    const int64_t queries = starts.back();
    const TensorView q_view(q, dtype, {queries, s_.heads, s_.head_dim});
    const TensorView out_view(out, dtype, {queries, s_.heads, s_.head_dim});
    const TensorView start_view(starts.data(), DType::kInt32, {sequences + 1});
    const float scale = 1.0f / std::sqrt(static_cast<float>(s_.head_dim));
    if (!s_.paged) {
      const int64_t rows = s_.keys * s_.sequences;
      return ops::varlen_attention(
          {.q = q_view,
           .k = TensorView(k_[copy].data(), dtype, {rows, s_.kv_heads, s_.head_dim}),
           .v = TensorView(v_[copy].data(), dtype, {rows, s_.kv_heads, s_.head_dim}),
           .cu_q = start_view,
           .cu_k = TensorView(key_start_.data(), DType::kInt32, {sequences + 1}),
           .out = out_view,
           .scale = scale});
    }
    const int64_t blocks = static_cast<int64_t>(tables_.size());
    return ops::paged_attention(
        {.q = q_view,
         .k_cache =
             TensorView(k_[copy].data(), dtype, {blocks, kBlockSize, s_.kv_heads, s_.head_dim}),
         .v_cache =
             TensorView(v_[copy].data(), dtype, {blocks, kBlockSize, s_.kv_heads, s_.head_dim}),
         .block_tables =
             TensorView(tables_.data(), DType::kInt32, {sequences, blocks / s_.sequences}),
         .query_start = start_view,
         .seq_lens = TensorView(lens_.data(), DType::kInt32, {sequences}),
         .out = out_view,
         .scale = scale});
  }

  Shape s_;
  std::vector<T> q_, out_;
  std::vector<std::vector<T>> k_, v_;
  std::vector<int32_t> tables_, query_start_, key_start_, lens_;
};

template <class T>
bool time_shape(const Shape& s, const Options& options) {
  Batch<T> batch(s);
  if (!batch.is_right()) {
    std::printf("%-32s wrong result\n", s.name);
    return false;
  }
  std::vector<double> samples;
  const auto clock = [&] { return options.clock == "cpu" ? cpu_us() : now_us(); };
  const double end = now_us() + options.seconds * 1e6;
  for (size_t i = 0; samples.size() < 10 || (now_us() < end && samples.size() < 100000); ++i) {
    const double start = clock();
    if (!batch.run(i % batch.copies()).ok()) return false;
    samples.push_back(clock() - start);
  }
  const double us = median(samples);
  const double bytes =
      2.0 * static_cast<double>(s.sequences * s.keys * s.kv_heads * s.head_dim) * sizeof(T);
  std::printf(
      "%-32s %-8s heads %2ld/%-2ld D %3ld  median %10.1f us  best %10.1f us  %7.1f GFLOP/s  %6.2f "
      "GB/s\n",
      s.name, to_string(dtype_of<T>), static_cast<long>(s.heads), static_cast<long>(s.kv_heads),
      static_cast<long>(s.head_dim), us, quantile(samples, 0.0),
      2e-3 * static_cast<double>(multiply_adds(s)) / us, 1e-3 * bytes / us);
  std::fflush(stdout);
  return true;
}

bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    if (key == "--isa")
      o.isa = argv[i + 1];
    else if (key == "--only")
      o.only = argv[i + 1];
    else if (key == "--dtype")
      o.dtype = argv[i + 1];
    else if (key == "--clock")
      o.clock = argv[i + 1];
    else if (key == "--threads")
      o.threads = std::atoi(argv[i + 1]);
    else if (key == "--seconds")
      o.seconds = std::atof(argv[i + 1]);
    else
      return false;
  }
  return argc % 2 == 1;
}

int main_of(int argc, char** argv) {
  Options o;
  if (!parse(argc, argv, o)) {
    std::printf(
        "usage: %s [--isa NAME] [--threads N] [--seconds S] [--only TEXT] [--dtype NAME] [--clock "
        "cpu]\n",
        argv[0]);
    return 2;
  }
  if (o.threads > 0) ops::set_num_threads(o.threads);
  for (const auto isa : {ops::CpuIsa::kReference, ops::CpuIsa::kAvx2, ops::CpuIsa::kAvx512,
                         ops::CpuIsa::kAvx512Bf16, ops::CpuIsa::kAmxBf16}) {
    if (o.isa != ops::to_string(isa)) continue;
    const Status status = ops::set_cpu_isa(isa);
    if (!status.ok()) return std::printf("%s\n", status.message().c_str()), 1;
  }
  std::printf("%s, %s, %d threads, blocks of %ld\n", cpu_name().c_str(),
              ops::to_string(ops::cpu_isa()), ops::num_threads(), static_cast<long>(kBlockSize));
  bool ok = true;
  for (const Shape& s : kShapes) {
    if (std::string(s.name).find(o.only) == std::string::npos) continue;
    if (o.dtype.empty() || o.dtype == "float32") ok = time_shape<float>(s, o) && ok;
    if (o.dtype.empty() || o.dtype == "bfloat16") ok = time_shape<bf16>(s, o) && ok;
    if (o.dtype == "float16") ok = time_shape<f16>(s, o) && ok;
  }
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace mmcore::bench

int main(int argc, char** argv) { return mmcore::bench::main_of(argc, argv); }
