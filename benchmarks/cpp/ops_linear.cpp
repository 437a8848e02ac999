// Times ops::linear and prints GFLOP/s and GB/s of weights.
//
//   mmcore_bench_ops_linear [--isa NAME] [--threads N] [--seconds S] [--clock cpu]
//                           [dtype tokens n k]...
//
// --clock cpu takes the calling thread's CPU time, for one thread on a machine that others use too.
//
// Weights are taken in turn from enough copies to be read from memory, as in a model whose layers
// follow each other. Every shape is compared with a float64 sum at a few places before it is timed.
#include <time.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "mmcore/ops.h"
#include "tensor/half.h"
#include "timing.h"

namespace {

using mmcore::DType;
using mmcore::TensorView;

struct Shape {
  std::string dtype;
  int64_t tokens, n, k;
};

struct Options {
  std::string isa;
  int threads = 0;
  double seconds = 0.5;
  bool cpu_clock = false;
  std::vector<Shape> shapes;
};

/// Memory as a tensor library hands it out: begins at a cache line.
template <class T>
struct CacheAligned {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kLine); }
  friend bool operator==(const CacheAligned&, const CacheAligned&) { return true; }
};
template <class T>
using Buffer = std::vector<T, CacheAligned<T>>;

template <class T>
bool is_right(const Buffer<T>& x, const Buffer<T>& w, const Buffer<T>& out, const Shape& s) {
  std::mt19937 random(1);
  for (int i = 0; i < 100; ++i) {
    const auto t = static_cast<int64_t>(random() % static_cast<uint64_t>(s.tokens));
    const auto n = static_cast<int64_t>(random() % static_cast<uint64_t>(s.n));
    double sum = 0.0, magnitude = 0.0;
    for (int64_t k = 0; k < s.k; ++k) {
      const double a = static_cast<float>(x[static_cast<size_t>(t * s.k + k)]);
      const double b = static_cast<float>(w[static_cast<size_t>(n * s.k + k)]);
      sum += a * b;
      magnitude += std::abs(a * b);
    }
    const double given = static_cast<float>(out[static_cast<size_t>(t * s.n + n)]);
    const double unit = sizeof(T) == 4 ? 0x1p-24 : sizeof(T) == 2 ? 0x1p-8 : 1.0;
    if (!(std::abs(given - sum) <= unit * std::abs(sum) + 4e-6 * magnitude)) {
      std::printf("wrong result: out[%ld][%ld] is %g, expected %g\n", static_cast<long>(t),
                  static_cast<long>(n), given, sum);
      return false;
    }
  }
  return true;
}

double cpu_us() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

template <class T>
bool measure(const Shape& s, const Options& o) {
  const size_t weight = static_cast<size_t>(s.n * s.k);
  const size_t bytes = weight * sizeof(T);
  const size_t copies = s.tokens <= 32 ? std::clamp<size_t>(300'000'000 / bytes, 1, 64) : 1;
  std::mt19937 random(7);
  std::uniform_real_distribution<float> value(-1.0f, 1.0f);
  Buffer<T> x(static_cast<size_t>(s.tokens * s.k)), out(static_cast<size_t>(s.tokens * s.n));
  for (T& v : x) v = T(value(random));
  std::vector<Buffer<T>> weights(copies, Buffer<T>(weight));
  for (T& v : weights[0]) v = T(value(random));
  for (size_t i = 1; i < copies; ++i) weights[i] = weights[0];
  const DType dtype = mmcore::dtype_of<T>;
  size_t turn = 0;
  const auto run = [&] {
    turn = (turn + 1) % copies;
    const mmcore::Status status =
        mmcore::ops::linear({.x = TensorView(x.data(), dtype, {s.tokens, s.k}),
                             .weight = TensorView(weights[turn].data(), dtype, {s.n, s.k}),
                             .bias = {},
                             .out = TensorView(out.data(), dtype, {s.tokens, s.n}),
                             .out_rows = {}});
    if (!status.ok()) std::printf("%s\n", status.message().c_str());
    return status.ok();
  };
  if (!run() || !is_right(x, weights[turn], out, s)) return false;
  const auto clock = o.cpu_clock ? cpu_us : mmcore::bench::now_us;
  std::vector<double> times;
  const double begin = clock();
  while (times.size() < 5 || clock() - begin < o.seconds * 1e6) {
    const double start = clock();
    run();
    times.push_back(clock() - start);
  }
  const double median = mmcore::bench::median(times) * 1e-6;
  std::printf("%-9s T%5ld N%6ld K%6ld %10.1f us %8.1f GFLOP/s %7.1f GB/s  best %.1f us of %zu\n",
              s.dtype.c_str(), static_cast<long>(s.tokens), static_cast<long>(s.n),
              static_cast<long>(s.k), median * 1e6,
              2.0 * static_cast<double>(s.tokens * s.n * s.k) / median * 1e-9,
              static_cast<double>(bytes) / median * 1e-9, mmcore::bench::quantile(times, 0.0),
              times.size());
  std::fflush(stdout);
  return true;
}

bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i < argc;) {
    const std::string arg = argv[i];
    const bool option = arg.starts_with("--");
    if (i + (option ? 1 : 3) >= argc) return false;
    if (arg == "--isa") {
      o.isa = argv[i + 1];
    } else if (arg == "--threads") {
      o.threads = std::stoi(argv[i + 1]);
    } else if (arg == "--seconds") {
      o.seconds = std::stod(argv[i + 1]);
    } else if (arg == "--clock" && std::string(argv[i + 1]) == "cpu") {
      o.cpu_clock = true;
    } else if (option) {
      return false;
    } else {
      o.shapes.push_back(
          {arg, std::stoll(argv[i + 1]), std::stoll(argv[i + 2]), std::stoll(argv[i + 3])});
    }
    i += option ? 2 : 4;
  }
  if (!o.shapes.empty()) return true;
  for (const char* dtype : {"float32", "bfloat16"}) {
    for (const auto& [t, n, k] : std::initializer_list<std::array<int64_t, 3>>{{1, 576, 576},
                                                                               {1, 1536, 576},
                                                                               {1, 49152, 576},
                                                                               {1, 4096, 4096},
                                                                               {1, 8192, 8192},
                                                                               {4, 4096, 4096},
                                                                               {8, 4096, 4096},
                                                                               {16, 4096, 4096},
                                                                               {32, 1536, 576},
                                                                               {32, 576, 1536},
                                                                               {32, 49152, 576},
                                                                               {32, 4096, 4096},
                                                                               {128, 1536, 576},
                                                                               {128, 4096, 4096},
                                                                               {577, 4096, 1024},
                                                                               {512, 4096, 4096},
                                                                               {2048, 2048, 2048}})
      o.shapes.push_back({dtype, t, n, k});
  }
  return true;
}

bool choose_isa(const std::string& name) {
  using mmcore::ops::CpuIsa;
  for (int i = 0; i < 16; ++i) {
    const auto isa = static_cast<CpuIsa>(i);
    if (name == mmcore::ops::to_string(isa)) return mmcore::ops::set_cpu_isa(isa).ok();
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  if (!parse(argc, argv, o)) {
    std::printf(
        "usage: ops_linear [--isa NAME] [--threads N] [--seconds S] [dtype tokens n k]...\n");
    return 2;
  }
  if (!o.isa.empty() && !choose_isa(o.isa)) {
    std::printf("no instruction set '%s' on this machine\n", o.isa.c_str());
    return 2;
  }
  if (o.threads > 0) mmcore::ops::set_num_threads(o.threads);
  std::printf("%s, %s, %d threads, medians%s\n", mmcore::bench::cpu_name().c_str(),
              mmcore::ops::to_string(mmcore::ops::cpu_isa()), mmcore::ops::num_threads(),
              o.cpu_clock ? " of CPU time" : "");
  bool ok = true;
  for (const Shape& s : o.shapes) {
    if (s.dtype == "float32") {
      ok = measure<float>(s, o) && ok;
    } else if (s.dtype == "bfloat16") {
      ok = measure<mmcore::bf16>(s, o) && ok;
    } else if (s.dtype == "float16") {
      ok = measure<mmcore::f16>(s, o) && ok;
    } else {
      std::printf("unknown dtype %s\n", s.dtype.c_str());
      ok = false;
    }
  }
  return ok ? 0 : 1;
}
