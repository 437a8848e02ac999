// Captions a picture with a Python model under a C++ engine.
//   mmcore_embed_python VENV/bin/python CHECKPOINT PICTURE.ppm [QUESTION]
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

#include "mmcore/engine_loop.h"
#include "python_model.h"

namespace {

// A binary PPM without comments: "P6 width height 255" and the pixels.
bool read_ppm(const char* path, RgbImage& image) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int most = 0;
  if (!(file >> magic >> image.width >> image.height >> most) || magic != "P6" || most != 255 ||
      image.width < 1 || image.height < 1 || image.width > 8192 || image.height > 8192)
    return false;
  file.get();
  image.rgb.resize(size_t{3} * static_cast<size_t>(image.width) *
                   static_cast<size_t>(image.height));
  return static_cast<bool>(file.read(reinterpret_cast<char*>(image.rgb.data()),
                                     static_cast<std::streamsize>(image.rgb.size())));
}

int fail(const mmcore::Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}

int caption(const PythonModel& model, const RgbImage& image, const std::string& question) {
  auto loop = mmcore::EngineLoop::create(model.config(), model.runner());
  if (!loop.ok()) return fail(loop.status());
  auto request = model.make_request("USER: <image>\n" + question + " ASSISTANT:", {&image, 1});
  if (!request.ok()) return fail(request.status());
  request.value().sampling.temperature = 0;
  request.value().sampling.max_tokens = 64;
  auto stream = loop.value()->stream(std::move(request).value());
  if (!stream.ok()) return fail(stream.status());
  const auto outputs = stream.value()->collect();
  if (!outputs.ok()) return fail(outputs.status());
  const mmcore::RequestOutput& output = outputs.value().front();
  if (output.finish_reason == mmcore::FinishReason::kError) return fail(output.error);

  std::vector<mmcore::TokenId> ids;
  for (const mmcore::SampledToken& token : output.new_tokens) ids.push_back(token.token);
  const auto text = model.decode(ids);
  if (!text.ok()) return fail(text.status());
  std::string line;
  for (const mmcore::TokenId id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
  std::puts(line.c_str());
  std::fprintf(stderr, "%s\n", text.value().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  RgbImage image;
  if (argc < 4 || argc > 5 || !read_ppm(argv[3], image)) {
    std::fprintf(stderr, "usage: %s VENV/bin/python CHECKPOINT PICTURE.ppm [QUESTION]\n", argv[0]);
    return 2;
  }
  const auto model = PythonModel::load(argv[1], argv[2]);
  if (!model.ok()) return fail(model.status());
  return caption(*model.value(), image, argc == 5 ? argv[4] : "Describe the image.");
}
