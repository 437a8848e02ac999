// Base64 as pictures come in JSON.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "mmcore/status.h"

namespace service {

/// Decodes RFC 4648 base64 with or without padding; line breaks and other characters are refused.
mmcore::Result<std::vector<uint8_t>> decode_base64(std::string_view text);

}  // namespace service
