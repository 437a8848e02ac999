#include "metrics_text.h"

#include <algorithm>

namespace service {
namespace {

using mmcore::EngineMetrics;

template <class T>
struct Metric {
  const char* name;
  T EngineMetrics::* field;
  const char* help;
};

constexpr Metric<int64_t> kGauges[] = {
    {"requests_waiting", &EngineMetrics::num_waiting, "Sequences that wait to run."},
    {"tokens_waiting", &EngineMetrics::waiting_tokens, "Their tokens."},
    {"requests_running", &EngineMetrics::num_running, "Sequences that run."},
    {"kv_blocks", &EngineMetrics::blocks_total, "Blocks of the KV cache."},
    {"kv_blocks_used", &EngineMetrics::blocks_used, "Blocks that a sequence holds."},
    {"kv_blocks_cached", &EngineMetrics::blocks_cached, "Free blocks that a prompt may hit."},
    {"encoder_entries", &EngineMetrics::encoder_entries, "Pictures in the encoder cache."},
    {"encoder_entries_pinned", &EngineMetrics::encoder_entries_pinned, "Of these, in use."},
};

constexpr Metric<uint64_t> kCounters[] = {
    {"steps", &EngineMetrics::steps, "Steps run."},
    {"steps_failed", &EngineMetrics::steps_failed, "Steps rolled back."},
    {"requests_submitted", &EngineMetrics::requests_submitted, "Requests accepted."},
    {"requests_rejected", &EngineMetrics::requests_rejected, "Requests refused."},
    {"requests_finished", &EngineMetrics::requests_finished, "Ended by a stop or a length."},
    {"requests_aborted", &EngineMetrics::requests_aborted, "Ended because the client left."},
    {"requests_failed", &EngineMetrics::requests_failed, "Ended with an error."},
    {"requests_timed_out", &EngineMetrics::requests_timed_out, "Of these, for their time."},
    {"tokens_planned", &EngineMetrics::tokens_planned, "Tokens computed."},
    {"tokens_generated", &EngineMetrics::tokens_generated, "Tokens generated."},
    {"prefix_tokens_queried", &EngineMetrics::prefix_tokens_queried, "Prompt tokens looked up."},
    {"prefix_tokens_hit", &EngineMetrics::prefix_tokens_hit, "Of these, found in the cache."},
    {"pictures_encoded", &EngineMetrics::items_encoded, "Pictures that the tower saw."},
    {"pictures_skipped", &EngineMetrics::items_skipped, "Pictures that a cache answered."},
    {"preemptions", &EngineMetrics::preemptions, "Sequences that gave way."},
};

void line(std::string& out, const std::string& name, const char* type, const char* help,
          const std::string& value) {
  out += "# HELP mmcore_" + name + " " + help + "\n# TYPE mmcore_" + name + " " + type +
         "\nmmcore_" + name + " " + value + "\n";
}

}  // namespace

void HttpCounters::count(int status) {
  const auto* found = std::find(kCodes.begin(), kCodes.end() - 1, status);
  ++counts_[static_cast<size_t>(found - kCodes.begin())];
}

void HttpCounters::write(std::string& out) const {
  out += "# HELP mmcore_http_responses_total Answers by status code.\n";
  out += "# TYPE mmcore_http_responses_total counter\n";
  for (size_t i = 0; i < kCodes.size(); ++i)
    out += "mmcore_http_responses_total{code=\"" +
           (kCodes[i] == 0 ? std::string("other") : std::to_string(kCodes[i])) + "\"} " +
           std::to_string(counts_[i].load()) + "\n";
  line(out, "http_disconnects_total", "counter", "Clients that left before their answer's end.",
       std::to_string(disconnects.load()));
}

std::string metrics_text(const EngineMetrics& engine, const HttpCounters& http) {
  std::string out;
  for (const auto& [name, field, help] : kGauges)
    line(out, name, "gauge", help, std::to_string(engine.*field));
  for (const auto& [name, field, help] : kCounters)
    line(out, std::string(name) + "_total", "counter", help, std::to_string(engine.*field));
  http.write(out);
  return out;
}

}  // namespace service
