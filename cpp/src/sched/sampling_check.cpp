#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>

#include "sched/admission.h"

namespace mmcore {
namespace {

constexpr float kMaxTemperature = 1e6f;  // beyond it logits / temperature is flat in every dtype

// Shortest form that reads back as the same float, with a point as in Python: "2.0", "0.1", "nan".
std::string show(float value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 32> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  std::string text(buffer.data(), end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

Status refuse(const char* rule, const std::string& value) {
  return Status::invalid_argument(std::string(rule) + ", got " + value + ".");
}

// Written so that NaN fails every range.
Status check_numbers(const SamplingParams& p) {
  if (!(p.presence_penalty >= -2.0f && p.presence_penalty <= 2.0f))
    return refuse("presence_penalty must be in [-2, 2]", show(p.presence_penalty));
  if (!(p.frequency_penalty >= -2.0f && p.frequency_penalty <= 2.0f))
    return refuse("frequency_penalty must be in [-2, 2]", show(p.frequency_penalty));
  if (!(p.repetition_penalty > 0.0f && p.repetition_penalty <= 2.0f))
    return refuse("repetition_penalty must be in (0, 2]", show(p.repetition_penalty));
  if (!(p.temperature >= 0.0f))
    return refuse("temperature must be non-negative", show(p.temperature));
  if (!(p.temperature <= kMaxTemperature))
    return refuse("temperature must be at most 1000000", show(p.temperature));
  if (!(p.top_p > 0.0f && p.top_p <= 1.0f)) return refuse("top_p must be in (0, 1]", show(p.top_p));
  if (p.top_k < -1 || p.top_k == 0)
    return refuse("top_k must be -1 (disable), or at least 1", std::to_string(p.top_k));
  if (!(p.min_p >= 0.0f && p.min_p <= 1.0f))
    return refuse("min_p must be in [0, 1]", show(p.min_p));
  if (p.max_tokens < 1)
    return refuse("max_tokens must be at least 1", std::to_string(p.max_tokens));
  if (p.min_tokens < 0)
    return refuse("min_tokens must be greater than or equal to 0", std::to_string(p.min_tokens));
  if (p.min_tokens > p.max_tokens)
    return Status::invalid_argument(
        "min_tokens must be less than or equal to max_tokens=" + std::to_string(p.max_tokens) +
        ", got " + std::to_string(p.min_tokens) + ".");
  return {};
}

Status check_logprobs(const char* name, int32_t count, const EngineConfig& config) {
  if (count < -1)
    return Status::invalid_argument(std::string(name) + " must be non-negative, got " +
                                    std::to_string(count) + ".");
  if (count > config.max_logprobs)
    return Status::invalid_argument(
        std::string(name) + " must be at most max_logprobs=" + std::to_string(config.max_logprobs) +
        ", got " + std::to_string(count) + ".");
  return {};
}

Status check_token(const char* name, TokenId id, const EngineConfig& config) {
  if (id >= 0 && id < config.logits_size) return {};
  return Status::invalid_argument(std::string(name) + " must hold token ids in [0, " +
                                  std::to_string(config.logits_size) + "), got " +
                                  std::to_string(id) + ".");
}

Status check_count(const char* name, size_t count, int64_t limit) {
  if (static_cast<int64_t>(count) <= limit) return {};
  return Status::invalid_argument(std::string(name) + " must have at most " +
                                  std::to_string(limit) + " entries, got " + std::to_string(count) +
                                  ".");
}

Status check_token_lists(const SamplingParams& p, const EngineConfig& config) {
  MMCORE_RETURN_IF_ERROR(
      check_count("stop_token_ids", p.stop_token_ids.size(), config.max_stop_token_ids));
  MMCORE_RETURN_IF_ERROR(check_count("logit_bias", p.logit_bias.size(), config.max_logit_bias));
  MMCORE_RETURN_IF_ERROR(
      check_count("allowed_token_ids", p.allowed_token_ids.size(), config.logits_size));
  for (const TokenId id : p.stop_token_ids)
    MMCORE_RETURN_IF_ERROR(check_token("stop_token_ids", id, config));
  for (const TokenId id : p.allowed_token_ids)
    MMCORE_RETURN_IF_ERROR(check_token("allowed_token_ids", id, config));
  for (const auto& [id, bias] : p.logit_bias) {
    MMCORE_RETURN_IF_ERROR(check_token("logit_bias", id, config));
    if (!std::isfinite(bias)) return refuse("logit_bias must hold finite values", show(bias));
  }
  return {};
}

// With min_tokens, stop tokens are masked out at first: something else must be allowed.
Status check_can_sample(const SamplingParams& p, const EngineConfig& config) {
  if (p.min_tokens == 0 || p.allowed_token_ids.empty()) return {};
  const auto contains = [](const std::vector<TokenId>& ids, TokenId id) {
    return std::ranges::find(ids, id) != ids.end();
  };
  for (const TokenId id : p.allowed_token_ids) {
    const bool eos = !p.ignore_eos && contains(config.eos_token_ids, id);
    if (!eos && !contains(p.stop_token_ids, id)) return {};
  }
  return Status::invalid_argument(
      "allowed_token_ids holds stop tokens only, which min_tokens=" + std::to_string(p.min_tokens) +
      " forbids. Allow another token or set min_tokens=0.");
}

}  // namespace

Status check_sampling(const SamplingParams& params, const EngineConfig& config) {
  MMCORE_RETURN_IF_ERROR(check_numbers(params));
  MMCORE_RETURN_IF_ERROR(check_logprobs("logprobs", params.num_logprobs, config));
  MMCORE_RETURN_IF_ERROR(check_logprobs("prompt_logprobs", params.num_prompt_logprobs, config));
  MMCORE_RETURN_IF_ERROR(check_token_lists(params, config));
  return check_can_sample(params, config);
}

}  // namespace mmcore
