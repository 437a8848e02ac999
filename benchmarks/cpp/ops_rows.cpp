// Times norms, activations and the merge of embeddings: microseconds and GB/s read and written.
//
//   mmcore_bench_ops_rows [--threads N] [--seconds S]
//
// The tests compare the results; here every call has to succeed.
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "mmcore/ops.h"
#include "tensor/half.h"
#include "timing.h"

namespace {

namespace ops = mmcore::ops;
using mmcore::DType;
using mmcore::Status;
using mmcore::TensorView;

template <class T>
class Bench {
 public:
  Bench(int64_t tokens, int64_t hidden, double seconds)
      : tokens_(tokens), hidden_(hidden), seconds_(seconds) {
    std::mt19937 random(1);
    std::normal_distribution<float> value;
    for (auto* buffer : {&x_, &residual_, &out_}) {
      buffer->resize(static_cast<size_t>(tokens * hidden * 2));
      for (T& v : *buffer) v = T(value(random));
    }
    weight_.assign(static_cast<size_t>(hidden), T(1.0f));
    ids_.resize(static_cast<size_t>(tokens));
    for (int64_t& id : ids_) id = static_cast<int64_t>(random() % static_cast<uint64_t>(tokens));
  }

  bool run() {
    const TensorView x = view(x_, hidden_), out = view(out_, hidden_), wide = view(x_, 2 * hidden_);
    const TensorView weight(weight_.data(), kType, {hidden_});
    const TensorView residual = view(residual_, hidden_);
    const TensorView ids(ids_.data(), DType::kInt64, {tokens_});
    return time("rms_norm", 2,
                [&] {
                  return ops::rms_norm({.x = x, .weight = weight, .residual = {}, .out = out});
                }) &&
           time(
               "rms_norm + residual", 4,
               [&] {
                 return ops::rms_norm({.x = x, .weight = weight, .residual = residual, .out = out});
               }) &&
           time("layer_norm", 2,
                [&] {
                  return ops::layer_norm({.x = x, .weight = weight, .bias = weight, .out = out});
                }) &&
           time("gelu (erf)", 2,
                [&] { return ops::activation(x, ops::Activation::kGeluErf, out); }) &&
           time("gelu (tanh)", 2,
                [&] { return ops::activation(x, ops::Activation::kGeluTanh, out); }) &&
           time("silu * up", 3,
                [&] { return ops::activation_mul(wide, ops::Activation::kSilu, out); }) &&
           time("embedding_merge", 2, [&] {
             return ops::embedding_merge(
                 {.token_ids = ids, .table = x, .source = {}, .media = {}, .out = out});
           });
  }

 private:
  static constexpr DType kType = mmcore::dtype_of<T>;

  TensorView view(std::vector<T>& buffer, int64_t width) {
    return TensorView(buffer.data(), kType, {tokens_, width});
  }

  /// `passes`: how often an element of [tokens, hidden] is read or written.
  bool time(const char* name, int passes, const std::function<Status()>& call) {
    std::vector<double> times;
    const double begin = mmcore::bench::now_us();
    while (times.size() < 5 || mmcore::bench::now_us() - begin < seconds_ * 1e6) {
      const double start = mmcore::bench::now_us();
      const Status status = call();
      times.push_back(mmcore::bench::now_us() - start);
      if (!status.ok()) return std::printf("%s\n", status.message().c_str()), false;
    }
    const double us = mmcore::bench::median(times);
    const double bytes = static_cast<double>(tokens_ * hidden_ * passes) * sizeof(T);
    std::printf("%-9s %-20s [%5ld, %5ld] %9.1f us %7.1f GB/s\n", mmcore::to_string(kType), name,
                static_cast<long>(tokens_), static_cast<long>(hidden_), us, bytes / us * 1e-3);
    return true;
  }

  int64_t tokens_;
  int64_t hidden_;
  double seconds_;
  std::vector<T> x_, residual_, out_, weight_;
  std::vector<int64_t> ids_;
};

}  // namespace

int main(int argc, char** argv) {
  double seconds = 0.2;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--threads") ops::set_num_threads(std::stoi(argv[i + 1]));
    if (option == "--seconds") seconds = std::stod(argv[i + 1]);
  }
  std::printf("%s, %s, %d threads, medians\n", mmcore::bench::cpu_name().c_str(),
              ops::to_string(ops::cpu_isa()), ops::num_threads());
  bool ok = true;
  for (const auto& [tokens, hidden] :
       {std::pair<int64_t, int64_t>{1, 4096}, {32, 576}, {577, 4096}}) {
    ok = Bench<float>(tokens, hidden, seconds).run() && ok;
    ok = Bench<mmcore::bf16>(tokens, hidden, seconds).run() && ok;
  }
  return ok ? 0 : 1;
}
