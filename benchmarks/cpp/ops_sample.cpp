// Times ops::sample: microseconds for a batch, by kind of row.
//
//   mmcore_bench_ops_sample [--threads N] [--rows N] [--vocab N] [--seconds S]
//
// Logits are bfloat16, normal with deviation 3: about as peaked as a language model's. Before it is
// timed, a batch has to give every row what the row gives alone.
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "mmcore/ops.h"
#include "tensor/half.h"
#include "timing.h"

namespace {

using mmcore::SampledToken;
using mmcore::SampleRow;
using mmcore::TensorView;

struct Kind {
  const char* name;
  SampleRow row;
};

bool batch_equals_rows(const TensorView& logits, const std::vector<SampleRow>& rows) {
  std::vector<SampledToken> all, one;
  if (!mmcore::ops::sample(logits, rows, all).ok()) return false;
  for (size_t i = 0; i < rows.size(); ++i) {
    TensorView row = logits;
    row.data = row.ptr<mmcore::bf16>() + static_cast<int64_t>(i) * row.stride(0);
    row.shape[0] = 1;
    if (!mmcore::ops::sample(row, {&rows[i], 1}, one).ok()) return false;
    if (one[0].token != all[i].token) return false;
  }
  return true;
}

double time_us(const TensorView& logits, const std::vector<SampleRow>& rows, double seconds) {
  std::vector<SampledToken> out;
  std::vector<double> times;
  const double begin = mmcore::bench::now_us();
  while (times.size() < 5 || mmcore::bench::now_us() - begin < seconds * 1e6) {
    const double start = mmcore::bench::now_us();
    if (!mmcore::ops::sample(logits, rows, out).ok()) return -1.0;
    times.push_back(mmcore::bench::now_us() - start);
  }
  return mmcore::bench::median(times);
}

std::vector<Kind> kinds(const std::vector<mmcore::TokenId>& history) {
  std::vector<Kind> list = {
      {"greedy", {}},     {"temperature", {}},         {"top-k 50", {}},        {"top-p 0.9", {}},
      {"min-p 0.05", {}}, {"top-k 50, top-p 0.9", {}}, {"1,000 penalised", {}}, {"5 logprobs", {}}};
  list[0].row.temperature = 0.0f;
  list[2].row.top_k = 50;
  list[3].row.top_p = 0.9f;
  list[4].row.min_p = 0.05f;
  list[5].row.top_k = 50;
  list[5].row.top_p = 0.9f;
  list[6].row.repetition_penalty = 1.1f;
  list[6].row.frequency_penalty = 0.1f;
  list[6].row.prompt_tokens = history;
  list[6].row.output_tokens = history;
  list[7].row.num_logprobs = 5;
  return list;
}

}  // namespace

int main(int argc, char** argv) {
  int64_t rows = 32, vocab = 151936;
  double seconds = 0.5;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--threads") mmcore::ops::set_num_threads(std::stoi(argv[i + 1]));
    if (option == "--rows") rows = std::stoll(argv[i + 1]);
    if (option == "--vocab") vocab = std::stoll(argv[i + 1]);
    if (option == "--seconds") seconds = std::stod(argv[i + 1]);
  }
  std::mt19937 random(1);
  std::normal_distribution<float> logit(0.0f, 3.0f);
  std::vector<mmcore::bf16> memory(static_cast<size_t>(rows * vocab));
  for (mmcore::bf16& x : memory) x = mmcore::bf16(logit(random));
  const TensorView logits(memory.data(), mmcore::DType::kBFloat16, {rows, vocab});
  std::vector<mmcore::TokenId> history(1000);
  for (auto& t : history) t = static_cast<mmcore::TokenId>(random() % static_cast<uint64_t>(vocab));

  std::printf("%s, %s, %d threads, %ld rows of %ld bfloat16 logits, medians\n",
              mmcore::bench::cpu_name().c_str(), mmcore::ops::to_string(mmcore::ops::cpu_isa()),
              mmcore::ops::num_threads(), static_cast<long>(rows), static_cast<long>(vocab));
  bool ok = true;
  for (const Kind& kind : kinds(history)) {
    std::vector<SampleRow> batch(static_cast<size_t>(rows), kind.row);
    for (size_t i = 0; i < batch.size(); ++i) batch[i].counter = i;
    if (!batch_equals_rows(logits, batch)) {
      std::printf("%-20s a row in the batch differs from the row alone\n", kind.name);
      ok = false;
      continue;
    }
    const double us = time_us(logits, batch, seconds);
    std::printf("%-20s %9.1f us, %7.1f us a row\n", kind.name, us, us / static_cast<double>(rows));
  }
  return ok ? 0 : 1;
}
