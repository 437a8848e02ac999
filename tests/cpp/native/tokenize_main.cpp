// Encodes and decodes with a checkpoint's tokenizer: what the Python tests compare with Hugging
// Face tokenizers.
//
//   mmcore_native_tokenize JOB.json > RESULT.json
//
// A job: {"checkpoint": folder, "encode": [texts], "add_special": true, "parse_special": true,
// "decode": [[ids]], "skip_special": true}. The result: {"ids": [[ids]], "pieces": [[texts as hex,
// one a token and one at the end]]}.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "mmcore/native.h"
#include "native/json.h"

namespace {

using mmcore::native::Json;

bool flag(const Json& value) { return !value.is_bool() || value.as_bool(); }

void print_hex(const std::string& text) {
  std::printf("\"");
  for (const char c : text) std::printf("%02x", static_cast<unsigned>(static_cast<uint8_t>(c)));
  std::printf("\"");
}

int run(const Json& job) {
  const auto loaded = mmcore::native::Tokenizer::load(job["checkpoint"].as_string());
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.status().message().c_str());
    return 1;
  }
  const mmcore::native::Tokenizer& tokenizer = *loaded.value();
  const mmcore::native::EncodeOptions options = {
      .add_special_tokens = flag(job["add_special"]),
      .parse_special_tokens = flag(job["parse_special"])};
  std::printf("{\"ids\": [");
  const char* comma = "";
  for (const Json& text : job["encode"].as_array()) {
    const auto ids = tokenizer.encode(text.as_string(), options);
    if (!ids.ok()) return 1;
    std::printf("%s[", comma);
    comma = ",\n";
    for (size_t i = 0; i < ids.value().size(); ++i)
      std::printf("%s%d", i != 0 ? ", " : "", ids.value()[i]);
    std::printf("]");
  }
  std::printf("], \"pieces\": [");
  comma = "";
  for (const Json& ids : job["decode"].as_array()) {
    mmcore::native::TextStream stream(tokenizer, flag(job["skip_special"]));
    std::printf("%s[", comma);
    comma = ",\n";
    for (const Json& id : ids.as_array()) {
      print_hex(stream.push(static_cast<mmcore::TokenId>(id.as_int())));
      std::printf(", ");
    }
    print_hex(stream.finish());
    std::printf("]");
  }
  std::printf("]}\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: mmcore_native_tokenize JOB.json\n");
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto job = Json::parse(text);
  if (!job.ok()) {
    std::fprintf(stderr, "%s\n", job.status().message().c_str());
    return 2;
  }
  return run(job.value());
}
