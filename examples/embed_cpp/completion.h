// What a client asks for: the body of POST /v1/completions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mmcore/sampling.h"
#include "mmcore/status.h"

namespace service {

struct Completion {
  std::string prompt;
  std::vector<std::vector<uint8_t>> image_files;  // one for each <image> of the prompt, in order
  std::vector<std::string> stop;
  mmcore::SamplingParams sampling;
  bool stream = false;
  bool return_token_ids = false;
};

struct CompletionLimits {
  size_t max_images = 8;
  size_t max_stop = 4;  // as many as OpenAI's API takes
};

/// Reads a JSON object with the names of OpenAI's completions and, for pictures, "images": base64
/// or data: URLs. Unknown names and wrong types are kInvalidArgument: a misspelt "temperature" must
/// not be ignored. Ranges of sampling are checked by the engine.
mmcore::Result<Completion> parse_completion(std::string_view body, const CompletionLimits& limits);

}  // namespace service
