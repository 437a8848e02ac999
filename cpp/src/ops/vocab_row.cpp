#include "ops/vocab_row.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "ops/logit_edits.h"
#include "tensor/half.h"

namespace mmcore::ops {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kAnyMagnitude = 32;  // stands for all weights, however small
constexpr float kLowest = std::numeric_limits<float>::lowest();

const VocabKernels* vocab_kernels() {
  return IsaTable<const VocabKernels*>{.reference = &reference::vocab_kernels,
                                       .avx2 = MMCORE_IF_X86(&avx2::vocab_kernels),
                                       .avx512 = MMCORE_IF_X86(&avx512::vocab_kernels)}
      .pick();
}

template <class T>
LoadRow<T> load_kernel() {
  return IsaTable<LoadRow<T>>{.reference = reference::load_row<T>,
                              .avx2 = MMCORE_IF_X86(avx2::load_row<T>),
                              .avx512 = MMCORE_IF_X86(avx512::load_row<T>)}
      .pick();
}

double sum_of(std::span<const Candidate> c) {
  double sum = 0.0;
  for (const Candidate& x : c) sum += x.weight;
  return sum;
}

/// First whose cumulative weight exceeds u times the total.
TokenId draw_from(std::span<const Candidate> c, float u) {
  const double target = double{u} * sum_of(c);
  double reached = 0.0;
  TokenId last = c.front().token;
  for (const Candidate& x : c) {
    if (x.weight == 0.0f) continue;
    last = x.token;
    reached += x.weight;
    if (reached > target) break;
  }
  return last;
}

}  // namespace

template <class T>
bool VocabRow::load(const T* logits, int64_t n) {
  kernels_ = vocab_kernels();
  values_.resize(static_cast<size_t>(n));
  block_max_.resize(static_cast<size_t>(vocab_blocks(n)));
  edited_ = false;
  if (!load_kernel<T>()(logits, n, values_.data(), block_max_.data())) return false;
  find_max();
  return true;
}

template bool VocabRow::load<float>(const float*, int64_t);
template bool VocabRow::load<bf16>(const bf16*, int64_t);
template bool VocabRow::load<f16>(const f16*, int64_t);

bool VocabRow::edit(const SampleRow& params) {
  edited_ = edit_logits(params, values_, marks_);
  if (!edited_) return true;
  if (!load_kernel<float>()(values_.data(), size(), values_.data(), block_max_.data()))
    return false;
  find_max();
  return true;
}

void VocabRow::find_max() {
  max_ = -kInfinity;
  for (const float m : block_max_) max_ = std::max(max_, m);
}

TokenId VocabRow::argmax() const {
  const auto block = std::find(block_max_.begin(), block_max_.end(), max_) - block_max_.begin();
  const auto begin = values_.begin() + block * kVocabBlock;
  return static_cast<TokenId>(std::find(begin, values_.end(), max_) - values_.begin());
}

std::span<Candidate> VocabRow::largest(int64_t k) {
  // The k-th largest block maximum has k values at or above it, so nothing below it is needed.
  float threshold = kLowest;
  if (k <= static_cast<int64_t>(block_max_.size())) {
    weights_.assign(block_max_.begin(), block_max_.end());
    const auto kth = weights_.begin() + (k - 1);
    std::nth_element(weights_.begin(), kth, weights_.end(), std::greater<>());
    threshold = std::max(kLowest, *kth);
  }
  ids_.resize(values_.size() + kVocabBlock);
  const int64_t found = kernels_->select(values_.data(), size(), threshold, ids_.data());
  candidates_.clear();
  for (int64_t i = 0; i < found; ++i) {
    const int32_t id = ids_[static_cast<size_t>(i)];
    candidates_.push_back({(*this)[id], id});
  }
  if (found > k) {
    reordered_ = candidates_;
    const auto kth = reordered_.begin() + (k - 1);
    std::nth_element(reordered_.begin(), kth, reordered_.end());
    keep_up_to(*kth);
  }
  return candidates_;
}

/// Drops candidates that come after `last` in their order.
void VocabRow::keep_up_to(const Candidate& last) {
  std::erase_if(candidates_, [&](const Candidate& c) { return last < c; });
}

/// Keeps the nucleus of `mass`, which holds all candidates of weight `surely` or more.
void VocabRow::keep_nucleus(double mass, float surely) {
  reordered_.clear();
  for (const Candidate& c : candidates_) {
    if (c.weight >= surely) {
      mass -= c.weight;
    } else {
      reordered_.push_back(c);
    }
  }
  if (!reordered_.empty()) keep_up_to(nucleus(reordered_, mass).back());
}

/// Fills weights_ and block_sum_; returns the total.
double VocabRow::weigh_all(float inverse_temperature) {
  weights_.resize(values_.size());
  block_sum_.resize(block_max_.size());
  kernels_->weigh(values_.data(), size(), max_, inverse_temperature, weights_.data(),
                  block_sum_.data());
  double total = 0.0;
  for (const double s : block_sum_) total += s;
  return total;
}

double VocabRow::total_weight() {
  block_sum_.resize(block_max_.size());
  kernels_->weigh(values_.data(), size(), max_, 1.0f, nullptr, block_sum_.data());
  double total = 0.0;
  for (const double s : block_sum_) total += s;
  return total;
}

int32_t VocabRow::rank(TokenId token) const {
  const float value = (*this)[token];
  const float* row = values_.data();
  return static_cast<int32_t>(1 + kernels_->count_above(row, token, value, true) +
                              kernels_->count_above(row + token, size() - token, value, false));
}

/// The k largest with their weights.
void VocabRow::keep_largest(int64_t k, float inverse_temperature) {
  const size_t n = largest(k).size();
  weights_.resize(2 * n);
  block_sum_.resize(static_cast<size_t>(vocab_blocks(static_cast<int64_t>(n))));
  for (size_t i = 0; i < n; ++i) weights_[i] = candidates_[i].weight;
  kernels_->weigh(weights_.data(), static_cast<int64_t>(n), max_, inverse_temperature,
                  weights_.data() + n, block_sum_.data());
  for (size_t i = 0; i < n; ++i) candidates_[i].weight = weights_[n + i];
}

/// The least e for which the weights of 2^-e or more sum up to `mass`, or kAnyMagnitude.
int VocabRow::magnitude_of(double mass) const {
  int low = 0, high = kAnyMagnitude;
  while (low < high) {
    const int e = (low + high) / 2;
    if (kernels_->sum_from(weights_.data(), size(), std::ldexp(1.0f, -e)) >= mass) {
      high = e;
    } else {
      low = e + 1;
    }
  }
  return low;
}

/// Cuts by top-p, and by min-p where that cuts more. The magnitude at which the weights reach the
/// mass is found first, so that only tokens of that magnitude have to be put in order.
void VocabRow::keep_likely(float top_p, float min_p, float inverse_temperature) {
  const double mass = double{top_p} * weigh_all(inverse_temperature);
  const int magnitude = top_p < 1.0f ? magnitude_of(mass) : kAnyMagnitude;
  const float least = magnitude < kAnyMagnitude ? std::ldexp(1.0f, -magnitude) : 0.0f;
  ids_.resize(values_.size() + kVocabBlock);
  const int64_t found =
      kernels_->select(weights_.data(), size(), std::max(min_p, least), ids_.data());
  candidates_.clear();
  for (int64_t i = 0; i < found; ++i) {
    const int32_t id = ids_[static_cast<size_t>(i)];
    candidates_.push_back({weights_[static_cast<size_t>(id)], id});
  }
  if (top_p < 1.0f) keep_nucleus(mass, std::ldexp(1.0f, 1 - magnitude));
}

TokenId VocabRow::draw_from_all(float inverse_temperature, float u) {
  const double target = double{u} * weigh_all(inverse_temperature);
  double reached = 0.0;
  size_t block = 0;
  while (block + 1 < block_sum_.size() && reached + block_sum_[block] <= target)
    reached += block_sum_[block++];
  TokenId last = argmax();
  for (size_t i = block * kVocabBlock; i < weights_.size(); ++i) {
    if (weights_[i] == 0.0f) continue;
    last = static_cast<TokenId>(i);
    reached += weights_[i];
    if (reached > target) break;
  }
  return last;
}

TokenId VocabRow::draw(const SampleRow& params, float u) {
  const float inverse_temperature = 1.0f / params.temperature;
  const bool top_k = params.top_k >= 1 && params.top_k < size();
  const bool top_p = params.top_p < 1.0f;
  if (!top_k && !top_p && params.min_p == 0.0f) return draw_from_all(inverse_temperature, u);
  if (top_k) {
    keep_largest(params.top_k, inverse_temperature);
    if (top_p) keep_nucleus(double{params.top_p} * sum_of(candidates_), kInfinity);
  } else {
    keep_likely(params.top_p, params.min_p, inverse_temperature);
  }
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < params.min_p; });
  return draw_from(candidates_, u);
}

std::span<Candidate> nucleus(std::span<Candidate> c, double mass) {
  // Halves the undecided part [lo, hi): everything before lo is kept, everything from hi on is not.
  size_t lo = 0;
  size_t hi = c.size();
  double kept = 0.0;
  while (hi - lo > 32) {
    const size_t middle = lo + (hi - lo) / 2;
    const auto at = [&](size_t i) { return c.begin() + static_cast<std::ptrdiff_t>(i); };
    std::nth_element(at(lo), at(middle), at(hi));
    const double upper = sum_of(c.subspan(lo, middle - lo));
    if (kept + upper >= mass) {
      hi = middle;
    } else {
      kept += upper;
      lo = middle;
    }
  }
  const std::span<Candidate> rest = c.subspan(lo, hi - lo);
  std::sort(rest.begin(), rest.end());
  while (lo < hi && kept < mass) kept += c[lo++].weight;
  return c.first(std::max<size_t>(lo, std::min<size_t>(1, c.size())));
}

}  // namespace mmcore::ops
