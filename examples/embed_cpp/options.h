// The command line of the service.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace service {

struct Options {
  std::string model;
  std::string host = "127.0.0.1";
  int port = 8000;              // 0: any free one
  std::string device = "auto";  // cpu, cuda, cuda:1 ...; auto: a GPU where there is one
  std::string dtype = "auto";   // as the checkpoint says
  int32_t kv_cache_mb = 0;      // 0: 256 on a CPU, what is left on a GPU
  int32_t max_model_len = 0;    // 0: the checkpoint's
  int32_t max_num_seqs = 64;
  int32_t max_requests = 512;  // unfinished ones; more are answered with 429
  int32_t connections = 1024;  // more wait for a thread
  int32_t max_body_mb = 16;
  int32_t max_megapixels = 16;
  int32_t timeout_s = 120;  // of one request
  int32_t drain_s = 30;     // after SIGTERM
};

/// Reads "--name value" pairs. Without a value, an error or help was printed and `status` says how
/// to exit.
std::optional<Options> parse_options(int argc, char** argv, int& status);

}  // namespace service
