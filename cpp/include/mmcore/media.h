// Media items of a request, as the core sees them: where their placeholders are and what they are,
// no pixels.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "mmcore/export.h"
#include "mmcore/types.h"

namespace mmcore {

enum class MediaKind : int32_t { kImage = 0, kAudio = 1, kVideo = 2, kOther = 3 };

/// What a runner needs of an item, such as its pixels. The core hands it on and never looks inside.
/// A runner derives from it, and tells its own kind by dynamic_cast in ModelRunner::accept.
class MMCORE_API MediaPayload {
 public:
  virtual ~MediaPayload();
};

/// One item (one image, say) and the span of prompt tokens that stands for it.
///
///   prompt   t t [ p p p | p p p ] t t t          span = [offset, offset + length)
///   embed        1 1 1 0 1 1 1                    1: overwritten by an embedding row, 0: a text
///   token (row break ...)
///
/// Spans of a request are in prompt order and do not overlap.
struct MediaItem {
  MediaKind kind = MediaKind::kImage;
  ContentId id{};      // empty = unique to this request: never shared through a cache
  int32_t offset = 0;  // first prompt token of the span
  int32_t length = 0;  // tokens in the span, >= 1
  // Empty = all ones; else `length` entries of 0 or 1, at least one 1.
  std::vector<uint8_t> embed_mask{};
  std::shared_ptr<const MediaPayload> payload{};  // for the runner; may be null
  int64_t num_embeddings() const;                 // rows that the encoder gives for this item
};

inline int64_t MediaItem::num_embeddings() const {
  if (embed_mask.empty()) return length;
  int64_t n = 0;
  for (uint8_t b : embed_mask) n += b != 0;
  return n;
}

/// Hashes length-framed pieces: for each frame its length as 8 bytes little-endian, then its bytes,
/// all into one SHA-256. The frames are kind, dtype, shape, mode, normalised pixels, processor
/// configuration, in this order.
MMCORE_API ContentId content_id(std::span<const std::string_view> frames);

}  // namespace mmcore
