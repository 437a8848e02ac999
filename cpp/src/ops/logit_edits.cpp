#include "ops/logit_edits.h"

#include <algorithm>
#include <limits>

namespace mmcore::ops {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

/// Calls f(index) for each id that the row has.
template <class F>
void for_each_inside(std::span<const TokenId> ids, std::span<const float> row, F&& f) {
  for (const TokenId id : ids) {
    if (id >= 0 && static_cast<size_t>(id) < row.size()) f(static_cast<size_t>(id));
  }
}

void keep_only(std::span<const TokenId> allowed, std::span<float> row) {
  std::vector<float> kept;
  kept.reserve(allowed.size());
  for_each_inside(allowed, row, [&](size_t id) { kept.push_back(row[id]); });
  std::fill(row.begin(), row.end(), kMasked);
  size_t i = 0;
  for_each_inside(allowed, row, [&](size_t id) { row[id] = kept[i++]; });
}

void penalise_repetition(const SampleRow& params, std::span<float> row,
                         std::vector<int32_t>& marks) {
  const auto once = [&](size_t id) {
    if (marks[id]++ != 0) return;
    row[id] =
        row[id] > 0.0f ? row[id] / params.repetition_penalty : row[id] * params.repetition_penalty;
  };
  for_each_inside(params.prompt_tokens, row, once);
  for_each_inside(params.output_tokens, row, once);
  const auto clear = [&](size_t id) { marks[id] = 0; };
  for_each_inside(params.prompt_tokens, row, clear);
  for_each_inside(params.output_tokens, row, clear);
}

void penalise_output(const SampleRow& params, std::span<float> row, std::vector<int32_t>& marks) {
  for_each_inside(params.output_tokens, row, [&](size_t id) { ++marks[id]; });
  for_each_inside(params.output_tokens, row, [&](size_t id) {
    if (marks[id] == 0) return;  // done at its first occurrence
    row[id] -= params.frequency_penalty * static_cast<float>(marks[id]) + params.presence_penalty;
    marks[id] = 0;
  });
}

}  // namespace

bool edits_logits(const SampleRow& params) {
  return !params.allowed_tokens.empty() || !params.banned_tokens.empty() ||
         !params.logit_bias.empty() || params.repetition_penalty != 1.0f ||
         params.frequency_penalty != 0.0f || params.presence_penalty != 0.0f;
}

bool edit_logits(const SampleRow& params, std::span<float> row, std::vector<int32_t>& marks) {
  if (!edits_logits(params)) return false;
  const bool repetition = params.repetition_penalty != 1.0f;
  const bool output = params.frequency_penalty != 0.0f || params.presence_penalty != 0.0f;
  if (!params.allowed_tokens.empty()) keep_only(params.allowed_tokens, row);
  for_each_inside(params.banned_tokens, row, [&](size_t id) { row[id] = kMasked; });
  for (const auto& [id, bias] : params.logit_bias) {
    if (id >= 0 && static_cast<size_t>(id) < row.size()) row[static_cast<size_t>(id)] += bias;
  }
  if (repetition || output) marks.resize(std::max(marks.size(), row.size()), 0);
  if (repetition) penalise_repetition(params, row, marks);
  if (output) penalise_output(params, row, marks);
  return true;
}

}  // namespace mmcore::ops
