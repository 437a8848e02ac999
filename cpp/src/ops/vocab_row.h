// One row of logits on its way to a token, in memory that the thread keeps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mmcore/sampling.h"
#include "ops/vocab_kernels.h"

namespace mmcore::ops {

/// A token with its unnormalised probability.
struct Candidate {
  float weight;
  TokenId token;
  /// More likely first, then the smaller id: the order of every cut and every list.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.weight > b.weight || (a.weight == b.weight && a.token < b.token);
  }
};

/// The values of one row at a time, with each block's maximum. Buffers are reused: no allocation
/// once they have grown.
class VocabRow {
 public:
  /// False when the row holds a NaN.
  template <class T>
  bool load(const T* logits, int64_t n);
  /// Masks, biases and penalties of `params`; after it `edited()` may hold. False when they made a
  /// NaN.
  bool edit(const SampleRow& params);

  int64_t size() const { return static_cast<int64_t>(values_.size()); }
  bool edited() const { return edited_; }
  float max() const { return max_; }
  float operator[](TokenId token) const { return values_[static_cast<size_t>(token)]; }

  /// The largest value; of equal ones the smallest id.
  TokenId argmax() const;
  /// Temperature, top-k, top-p, min-p and the draw with u in [0, 1). Needs max() > -inf.
  TokenId draw(const SampleRow& params, float u);
  /// The `k` largest values, or all above -inf if they are fewer, by ascending id; weight is the
  /// value.
  std::span<Candidate> largest(int64_t k);
  /// Sum of e^(value - max) over the row, >= 1.
  double total_weight();
  /// 1 + the number of tokens before `token` in the order of Candidate.
  int32_t rank(TokenId token) const;

 private:
  void find_max();
  double weigh_all(float inverse_temperature);
  void keep_largest(int64_t k, float inverse_temperature);
  void keep_likely(float top_p, float min_p, float inverse_temperature);
  void keep_up_to(const Candidate& last);
  void keep_nucleus(double mass, float surely);
  int magnitude_of(double mass) const;
  TokenId draw_from_all(float inverse_temperature, float u);

  const VocabKernels* kernels_ = nullptr;
  std::vector<float> values_;
  std::vector<float> block_max_;
  std::vector<float> weights_;
  std::vector<double> block_sum_;
  std::vector<int32_t> ids_;
  std::vector<int32_t> marks_;
  std::vector<Candidate> candidates_;  // by ascending id
  std::vector<Candidate> reordered_;
  float max_ = 0.0f;
  bool edited_ = false;
};

/// Finds the shortest prefix, in the order of Candidate, whose weights sum up to `mass` or more,
/// all if none does, and puts it in front; its last element is the last in that order. Never empty
/// unless `c` is. O(size).
std::span<Candidate> nucleus(std::span<Candidate> c, double mass);

}  // namespace mmcore::ops
