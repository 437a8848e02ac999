// Captions a picture with the native runner, from text to text, and prints the token ids.
//   caption CHECKPOINT PICTURE.ppm
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mmcore/engine_loop.h"
#include "mmcore/native.h"

namespace native = mmcore::native;

namespace {

struct Picture {
  std::vector<uint8_t> rgb;
  int32_t width = 0;
  int32_t height = 0;
};

Picture read_ppm(const char* path) {
  Picture picture;
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int most = 0;
  file >> magic >> picture.width >> picture.height >> most;
  file.get();
  if (magic != "P6" || most != 255 || picture.width < 1 || picture.height < 1) return {};
  picture.rgb.resize(size_t{3} * static_cast<size_t>(picture.width) *
                     static_cast<size_t>(picture.height));
  file.read(reinterpret_cast<char*>(picture.rgb.data()),
            static_cast<std::streamsize>(picture.rgb.size()));
  return picture;
}

template <class T>
T need(mmcore::Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "caption: %s\n", result.status().message().c_str());
    std::exit(1);
  }
  return std::move(result).value();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) return 2;
  native::RunnerOptions options;
  if (argc == 4) options.device = argv[3];
  options.dtype = mmcore::DType::kFloat32;
  options.kv_cache_bytes = 16 << 20;
  const std::shared_ptr<native::NativeRunner> runner =
      need(native::NativeRunner::load(argv[1], options));
  const auto tokenizer = need(native::Tokenizer::load(argv[1]));
  const auto loop = need(mmcore::EngineLoop::create(runner->engine_config(), runner));

  const Picture picture = read_ppm(argv[2]);
  const native::ImageView view{picture.rgb.data(), picture.width, picture.height};
  const auto prompt = need(tokenizer->encode("USER: <image>\nDescribe the image. ASSISTANT:"));
  mmcore::Request request = need(runner->make_request(prompt, {&view, 1}));
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 64;
  const auto stream = need(loop->stream(std::move(request)));
  const auto outputs = need(stream->collect());

  native::TextStream text(*tokenizer);
  std::string ids, caption;
  for (const mmcore::SampledToken& token : outputs.front().new_tokens) {
    ids += (ids.empty() ? "" : " ") + std::to_string(token.token);
    caption += text.push(token.token);
  }
  caption += text.finish();
  std::puts(ids.c_str());
  std::fprintf(stderr, "%s\n", caption.c_str());
  return 0;
}
