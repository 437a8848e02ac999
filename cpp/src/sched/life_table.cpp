#include "sched/life_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

namespace mmcore {
namespace {

constexpr int32_t kRemembered = 512;  // answers, after which all counts are halved
constexpr double kPriorAnswers = 2;   // that the prior weighs as much as
constexpr double kLeastShare = 0.01;  // that goes on: nothing is certain, and nothing underflows

// 1 / the lengths in an interval.
constexpr auto kPerToken = [] {
  std::array<double, 120> per_token{};
  double value = 1;
  for (size_t i = 0; i < per_token.size(); ++i) {
    if (i >= 8 && i % 4 == 0) value /= 2;
    per_token[i] = value;
  }
  return per_token;
}();

}  // namespace

LifeTable::LifeTable(double prior) : prior_(1 - std::pow(1 - prior, 0.25)) {
  begin_estimate();
  end_estimate();
}

size_t LifeTable::interval(int32_t length) {
  const auto value = static_cast<uint32_t>(std::max(length, 0));
  if (value < 4) return value;
  const auto octave = static_cast<uint32_t>(std::bit_width(value)) - 3;
  return 4 * (octave + 1) + ((value >> octave) & 3);
}

int64_t LifeTable::first(size_t interval) {
  if (interval < 4) return static_cast<int64_t>(interval);
  return static_cast<int64_t>(4 + interval % 4) << (interval / 4 - 1);
}

// How much of the interval an answer has passed that goes on after `length` tokens.
double LifeTable::share(size_t interval, int32_t length) {
  static_assert(kPerToken.size() == kIntervals);
  return static_cast<double>(length + 1 - first(interval)) * kPerToken[interval];
}

void LifeTable::reached(Counts& counts, int32_t outputs) {
  const size_t i = interval(outputs);
  counts.reached[i] += 1;
  counts.part[i] += share(i, outputs);
  counts.used = std::max(counts.used, i + 1);
}

void LifeTable::count(int32_t outputs, bool stopped) {
  if (num_ended_ == kRemembered) {
    for (auto* counts : {&ended_.stopped, &ended_.reached, &ended_.part})
      for (double& value : *counts) value /= 2;
    num_ended_ = kRemembered / 2;
  }
  ++num_ended_;
  if (!stopped) return reached(ended_, outputs);
  const size_t i = interval(outputs);
  ended_.stopped[i] += 1;
  ended_.used = std::max(ended_.used, i + 1);
}

void LifeTable::begin_estimate() { now_ = ended_; }

void LifeTable::end_estimate() {
  // From the longest lives down: how many came to the end of the interval.
  double beyond = 0;
  for (size_t i = kIntervals; i-- > 0;) {
    double stops = prior_;
    if (i < now_.used) {
      const double came = beyond + now_.part[i] + now_.stopped[i];
      stops = (now_.stopped[i] + kPriorAnswers * prior_) / (came + kPriorAnswers);
      beyond += now_.reached[i] + now_.stopped[i];
    }
    alive_[i + 1] = std::max(1 - stops, kLeastShare);
  }
  alive_[0] = 1;
  for (size_t i = 0; i < kIntervals; ++i) alive_[i + 1] *= alive_[i];
}

// The share of all answers that goes on after `outputs` tokens.
double LifeTable::going_on(int32_t outputs) const {
  const size_t i = interval(outputs);
  return alive_[i] + (alive_[i + 1] - alive_[i]) * share(i, outputs);
}

int32_t LifeTable::end(int32_t outputs, double left, int32_t limit) const {
  if (limit <= outputs + 1) return outputs + 1;
  const double target = left * going_on(outputs);
  const auto last = alive_.begin() + static_cast<ptrdiff_t>(interval(limit - 1)) + 1;
  if (*last > target) return limit;
  // The first interval at whose end no more than `target` go on; they end evenly within it.
  const auto begin = alive_.begin() + static_cast<ptrdiff_t>(interval(outputs)) + 1;
  const auto after = std::lower_bound(begin, last, target, std::greater{});
  const auto i = static_cast<size_t>(after - alive_.begin()) - 1;
  const double passed = alive_[i] > target ? (alive_[i] - target) / (alive_[i] - alive_[i + 1]) : 0;
  const auto width = static_cast<double>(first(i + 1) - first(i));
  const int64_t length = first(i) + static_cast<int64_t>(passed * width);
  return static_cast<int32_t>(std::clamp<int64_t>(length, outputs + 1, limit));
}

}  // namespace mmcore
