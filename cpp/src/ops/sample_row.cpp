#include "ops/sample_row.h"

#include <cmath>
#include <string>

namespace mmcore::ops {

// NaN fails every comparison.
Status check_sample_row(const SampleRow& r) {
  const auto wrong = [](const char* name, auto value, const char* expected) {
    return Status::invalid_argument(std::string("sample: ") + name + " is " +
                                    std::to_string(value) + ", expected " + expected);
  };
  if (!(r.temperature >= 0.0f && std::isfinite(r.temperature)))
    return wrong("temperature", r.temperature, "a finite number of at least 0");
  if (!(r.top_p > 0.0f && r.top_p <= 1.0f)) return wrong("top_p", r.top_p, "within (0, 1]");
  if (r.top_k != -1 && r.top_k < 1) return wrong("top_k", r.top_k, "-1 (off) or at least 1");
  if (!(r.min_p >= 0.0f && r.min_p <= 1.0f)) return wrong("min_p", r.min_p, "within [0, 1]");
  if (!(r.repetition_penalty > 0.0f && std::isfinite(r.repetition_penalty)))
    return wrong("repetition_penalty", r.repetition_penalty, "a finite number above 0");
  if (!std::isfinite(r.presence_penalty))
    return wrong("presence_penalty", r.presence_penalty, "a finite number");
  if (!std::isfinite(r.frequency_penalty))
    return wrong("frequency_penalty", r.frequency_penalty, "a finite number");
  if (r.num_logprobs < -1) return wrong("num_logprobs", r.num_logprobs, "-1 (none) or at least 0");
  return {};
}

Status nan_in_logits() { return Status::invalid_argument("sample: the logits hold a NaN"); }

Status nan_from_edits() {
  return Status::invalid_argument(
      "sample: logit_bias or a penalty turns a logit into a NaN; check them for infinities");
}

Status nothing_left(int64_t vocab) {
  return Status::invalid_argument(
      "sample: no token is left to choose; allowed_tokens, banned_tokens and logits of -inf "
      "leave none of " +
      std::to_string(vocab));
}

Status first_failure(const std::vector<Status>& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].ok())
      return {rows[i].code(), rows[i].message() + " (row " + std::to_string(i) + ")"};
  }
  return {};
}

}  // namespace mmcore::ops
