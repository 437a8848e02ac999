// Runs requests through an engine with the native runner: what the Python tests compare with
// transformers.
//
//   mmcore_native_generate JOB.json > RESULT.json
//
// A job: {"checkpoint": folder, "device": "cpu", "dtype": "float32", "together": true,
// "kv_cache_bytes": n, "max_num_batched_tokens": n, "prefix_caching": true, "requests": [{"tokens":
// [...], "images":
// [{"file": raw RGB bytes, "width": w, "height": h}], "max_tokens": n, "temperature": t, "seed": n,
// "logprobs": n, "prompt_logprobs": n, "repetition_penalty": p, "ignore_eos": true}]}.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>

#include "mmcore/engine.h"
#include "mmcore/native.h"
#include "native/json.h"

namespace {

using mmcore::native::ImageView;
using mmcore::native::Json;
using mmcore::native::NativeRunner;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int32_t integer(const Json& value, int32_t otherwise) {
  return value.is_int() ? static_cast<int32_t>(value.as_int()) : otherwise;
}

float number(const Json& value, float otherwise) {
  return value.is_number() ? static_cast<float>(value.as_double()) : otherwise;
}

mmcore::Result<mmcore::Request> read_request(const Json& json, const NativeRunner& runner) {
  std::vector<mmcore::TokenId> prompt;
  for (const Json& token : json["tokens"].as_array()) prompt.push_back(integer(token, -1));
  std::vector<std::string> bytes;
  std::vector<ImageView> images;
  if (json["images"].is_array()) {
    for (const Json& image : json["images"].as_array())
      bytes.push_back(read_file(image["file"].as_string()));
    for (size_t i = 0; i < bytes.size(); ++i) {
      const Json& image = json["images"].as_array()[i];
      images.push_back({reinterpret_cast<const uint8_t*>(bytes[i].data()),
                        integer(image["width"], 0), integer(image["height"], 0)});
    }
  }
  auto made = runner.make_request(prompt, images);
  if (!made.ok()) return made;
  mmcore::SamplingParams& sampling = made.value().sampling;
  sampling.temperature = number(json["temperature"], 0.0f);
  sampling.repetition_penalty = number(json["repetition_penalty"], 1.0f);
  sampling.max_tokens = integer(json["max_tokens"], 16);
  sampling.num_logprobs = integer(json["logprobs"], -1);
  sampling.num_prompt_logprobs = integer(json["prompt_logprobs"], -1);
  sampling.seed = static_cast<uint64_t>(integer(json["seed"], 0));
  sampling.ignore_eos = json["ignore_eos"].is_bool() && json["ignore_eos"].as_bool();
  return made;
}

struct Heard {
  std::vector<mmcore::SampledToken> tokens;
  std::vector<std::vector<mmcore::TokenLogprob>> prompt;
  std::string error;
};

void print_logprobs(const std::vector<mmcore::TokenLogprob>& list) {
  std::printf("[");
  for (size_t i = 0; i < list.size(); ++i)
    std::printf("%s[%d, %.9g]", i != 0 ? ", " : "", list[i].token, double{list[i].logprob});
  std::printf("]");
}

void print(const Heard& heard) {
  std::printf("{\"error\": %s, \"tokens\": [", heard.error.empty() ? "false" : "true");
  for (size_t i = 0; i < heard.tokens.size(); ++i)
    std::printf("%s%d", i != 0 ? ", " : "", heard.tokens[i].token);
  std::printf("], \"logprobs\": [");
  for (size_t i = 0; i < heard.tokens.size(); ++i) {
    if (i != 0) std::printf(", ");
    print_logprobs(heard.tokens[i].logprobs);
  }
  std::printf("], \"prompt_logprobs\": [");
  for (size_t i = 0; i < heard.prompt.size(); ++i) {
    if (i != 0) std::printf(", ");
    print_logprobs(heard.prompt[i]);
  }
  std::printf("]}");
}

int run(const Json& job) {
  mmcore::native::RunnerOptions options;
  options.device = job["device"].is_string() ? job["device"].as_string() : "cpu";
  if (job["dtype"].is_string())
    options.dtype =
        job["dtype"].as_string() == "float32" ? mmcore::DType::kFloat32 : mmcore::DType::kBFloat16;
  if (job["kv_cache_bytes"].is_int()) options.kv_cache_bytes = job["kv_cache_bytes"].as_int();
  options.max_num_batched_tokens =
      integer(job["max_num_batched_tokens"], options.max_num_batched_tokens);
  auto loaded = NativeRunner::load(job["checkpoint"].as_string(), options);
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.status().message().c_str());
    return 1;
  }
  const std::unique_ptr<NativeRunner> runner = std::move(loaded).value();
  mmcore::EngineConfig config = runner->engine_config();
  if (job["prefix_caching"].is_bool())
    config.enable_prefix_caching = job["prefix_caching"].as_bool();
  auto created = mmcore::Engine::create(config, runner.get());
  if (!created.ok()) {
    std::fprintf(stderr, "%s\n", created.status().message().c_str());
    return 1;
  }
  const std::unique_ptr<mmcore::Engine> engine = std::move(created).value();

  std::vector<mmcore::RequestId> ids;
  std::map<mmcore::RequestId, Heard> heard;
  const auto drain = [&] {
    while (engine->has_unfinished()) {
      if (!engine->step().ok()) return;
      for (mmcore::RequestOutput& output : engine->take_outputs()) {
        Heard& of = heard[output.id];
        of.tokens.insert(of.tokens.end(), output.new_tokens.begin(), output.new_tokens.end());
        for (auto& list : output.new_prompt_logprobs) of.prompt.push_back(std::move(list));
        if (!output.error.ok()) of.error = output.error.message();
      }
    }
  };
  const bool together = !job["together"].is_bool() || job["together"].as_bool();
  for (const Json& json : job["requests"].as_array()) {
    auto request = read_request(json, *runner);
    mmcore::Result<mmcore::RequestId> id = request.status();
    if (request.ok()) id = engine->submit(std::move(request).value());
    if (!id.ok()) {
      std::fprintf(stderr, "%s\n", id.status().message().c_str());
      return 1;
    }
    ids.push_back(id.value());
    if (!together) drain();
  }
  drain();
  const mmcore::EngineMetrics metrics = engine->metrics();
  std::printf("{\"steps\": %d, \"prefix_tokens_hit\": %d, \"items_encoded\": %d, \"outputs\": [\n",
              static_cast<int>(metrics.steps), static_cast<int>(metrics.prefix_tokens_hit),
              static_cast<int>(metrics.items_encoded));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i != 0) std::printf(",\n");
    print(heard[ids[i]]);
    if (!heard[ids[i]].error.empty()) std::fprintf(stderr, "%s\n", heard[ids[i]].error.c_str());
  }
  std::printf("\n]}\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: mmcore_native_generate JOB.json\n");
    return 2;
  }
  const auto job = Json::parse(read_file(argv[1]));
  if (!job.ok()) {
    std::fprintf(stderr, "%s\n", job.status().message().c_str());
    return 2;
  }
  return run(job.value());
}
