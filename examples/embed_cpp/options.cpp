#include "options.h"

#include <charconv>
#include <cstdio>
#include <string_view>

namespace service {
namespace {

struct Number {
  const char* name;
  int32_t Options::* field;
  int32_t least;
  int32_t most;
  const char* help;
};

constexpr Number kNumbers[] = {
    {"--port", &Options::port, 0, 65535, "port to listen on; 0 takes a free one"},
    {"--kv-cache-mb", &Options::kv_cache_mb, 0, 1 << 20,
     "memory for keys and values; 0: 256 on a CPU, what is left on a GPU"},
    {"--max-model-len", &Options::max_model_len, 0, 1 << 30, "tokens of a prompt and its answer"},
    {"--max-num-seqs", &Options::max_num_seqs, 1, 1 << 16, "requests that run at once"},
    {"--max-requests", &Options::max_requests, 1, 1 << 20, "unfinished requests; then 429"},
    {"--connections", &Options::connections, 1, 1 << 16, "connections served at once"},
    {"--max-body-mb", &Options::max_body_mb, 1, 1024, "largest body of a request"},
    {"--max-megapixels", &Options::max_megapixels, 1, 1024, "largest picture"},
    {"--timeout-s", &Options::timeout_s, 1, 1 << 20, "most time of one request"},
    {"--drain-s", &Options::drain_s, 0, 1 << 20, "after SIGTERM, time for what runs"},
};

void print_help() {
  std::puts(
      "mmcore_service --model FOLDER [--host ADDRESS] [--device auto|cpu|cuda|cuda:N]\n"
      "               [--dtype auto|float32|bfloat16|float16] and, each with a whole number:");
  for (const Number& number : kNumbers)
    std::printf("  %-18s %s (%d)\n", number.name, number.help, Options{}.*number.field);
}

bool read_number(std::string_view name, std::string_view text, Options& out) {
  for (const Number& number : kNumbers) {
    if (name != number.name) continue;
    int32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < number.least ||
        value > number.most) {
      std::fprintf(stderr, "%s must be in [%d, %d], not '%s'\n", number.name, number.least,
                   number.most, std::string(text).c_str());
      return false;
    }
    out.*number.field = value;
    return true;
  }
  std::fprintf(stderr, "unknown option %s; --help lists them\n", std::string(name).c_str());
  return false;
}

}  // namespace

std::optional<Options> parse_options(int argc, char** argv, int& status) {
  Options out;
  status = 2;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--help" || name == "-h") {
      print_help();
      status = 0;
      return std::nullopt;
    }
    if (i + 1 == argc) {
      std::fprintf(stderr, "%s needs a value\n", argv[i]);
      return std::nullopt;
    }
    if (name == "--model") {
      out.model = argv[i + 1];
    } else if (name == "--host") {
      out.host = argv[i + 1];
    } else if (name == "--device") {
      out.device = argv[i + 1];
    } else if (name == "--dtype") {
      out.dtype = argv[i + 1];
    } else if (!read_number(name, argv[i + 1], out)) {
      return std::nullopt;
    }
  }
  if (out.model.empty()) {
    std::fputs("--model FOLDER is missing; --help lists the options\n", stderr);
    return std::nullopt;
  }
  status = 0;
  return out;
}

}  // namespace service
