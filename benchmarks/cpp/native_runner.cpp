// Serves a LLaVA for benchmarks.e2e.native_runner, which measures it beside Python.
//
//   mmcore_bench_native_runner FOLDER PICTURES [DEVICE [DTYPE]]
//
// Reads lines "<requests> <tokens>", runs so many requests of so many tokens, each with the next
// picture of the file PICTURES, of the size that the model takes, and writes their tokens as one
// line of JSON. A checkpoint without a tokenizer gets a prompt of token ids.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mmcore/engine.h"
#include "mmcore/native.h"

namespace {

using namespace mmcore;

constexpr TokenId kTextTokens = 65;
constexpr char kPrompt[] = "USER: <image>\nDescribe the image. ASSISTANT:";

template <class T>
T value_or_exit(Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().message().c_str());
    std::exit(1);
  }
  return std::move(result).value();
}

native::RunnerOptions options_of(const std::string& device, const std::string& dtype) {
  native::RunnerOptions options;
  options.device = device;
  // Python's process is on the same GPU.
  options.gpu_memory_utilization = 0.5;
  for (const DType known : {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
    if (dtype == to_string(known)) options.dtype = known;
  return options;
}

class Server {
 public:
  Server(const std::string& folder, const std::string& pictures,
         const native::RunnerOptions& options)
      : runner_(value_or_exit(native::NativeRunner::load(folder, options))),
        engine_(value_or_exit(Engine::create(runner_->engine_config(), runner_.get()))),
        pictures_(pictures, std::ios::binary) {
    const auto tokenizer = native::Tokenizer::load(folder);
    if (tokenizer.ok()) {
      prompt_ = value_or_exit(tokenizer.value()->encode(kPrompt));
      return;
    }
    for (TokenId id = 0; id < kTextTokens; ++id) prompt_.push_back(100 + id * 97 % 400);
    prompt_[4] = runner_->model().image_token_id;
  }

  void serve(int requests, int tokens) {
    std::vector<RequestId> ids;
    for (int i = 0; i < requests; ++i) ids.push_back(submit(tokens));
    std::map<RequestId, std::vector<TokenId>> heard;
    while (engine_->has_unfinished()) {
      value_or_exit(engine_->step());
      for (const RequestOutput& output : engine_->take_outputs())
        for (const SampledToken& token : output.new_tokens) heard[output.id].push_back(token.token);
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      std::printf("%s[", i == 0 ? "[" : ", ");
      for (size_t k = 0; k < heard[ids[i]].size(); ++k)
        std::printf("%s%d", k == 0 ? "" : ", ", heard[ids[i]][k]);
      std::printf("]");
    }
    std::printf("]\n");
    std::fflush(stdout);
  }

 private:
  RequestId submit(int tokens) {
    const int32_t width = runner_->preprocessor()->width(),
                  height = runner_->preprocessor()->height();
    std::vector<uint8_t> rgb(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
    pictures_.read(reinterpret_cast<char*>(rgb.data()), static_cast<std::streamsize>(rgb.size()));
    const native::ImageView images[] = {{rgb.data(), width, height}};
    Request request = value_or_exit(runner_->make_request(prompt_, images));
    request.sampling.temperature = 0;
    request.sampling.max_tokens = tokens;
    request.sampling.ignore_eos = true;
    return value_or_exit(engine_->submit(std::move(request)));
  }

  std::unique_ptr<native::NativeRunner> runner_;
  std::unique_ptr<Engine> engine_;
  std::vector<TokenId> prompt_;
  std::ifstream pictures_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) return 2;
  Server server(argv[1], argv[2],
                options_of(argc > 3 ? argv[3] : "cpu", argc > 4 ? argv[4] : "float32"));
  int requests = 0, tokens = 0;
  while (std::scanf("%d %d", &requests, &tokens) == 2) server.serve(requests, tokens);
  return 0;
}
