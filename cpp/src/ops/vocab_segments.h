// How the GPU's sampler cuts a row of logits: segments of 256 tokens or a multiple, at most 1024.
#pragma once

#include <cstdint>

namespace mmcore::ops {

inline constexpr int64_t kSmallestSegment = 256;
inline constexpr int64_t kMostSegments = 1024;
inline constexpr int64_t kSegmentBytes = 16;  // of a segment's summary

/// Tokens of one segment.
constexpr int64_t segment_tokens(int64_t vocab) {
  const int64_t most = kSmallestSegment * kMostSegments;
  return kSmallestSegment * ((vocab + most - 1) / most);
}

constexpr int64_t num_segments(int64_t vocab) {
  return vocab == 0 ? 0 : (vocab + segment_tokens(vocab) - 1) / segment_tokens(vocab);
}

}  // namespace mmcore::ops
