#include "proof/documents.h"

#include <algorithm>

namespace mmcore::proof {
namespace {

constexpr int kDocuments = 6;
constexpr uint64_t kMaxBlocks = 8;

// Everything about an image follows from its identity, as with real ones.
MediaItem image(int which, size_t offset) {
  MediaItem item{.offset = static_cast<int32_t>(offset)};
  item.id.bytes[0] = static_cast<uint8_t>(which);  // 0: an image without identity
  item.length = which == 0 ? 2 : 1 + which;
  if (which == 2) item.embed_mask = {1, 0, 1};
  return item;
}

std::vector<MediaItem> as_keyed(const std::vector<MediaItem>& media, KeyFault fault) {
  std::vector<MediaItem> keyed = media;
  if (fault == KeyFault::kNoMedia) keyed.clear();
  if (fault == KeyFault::kNoMediaOffset && keyed.size() == 1) keyed[0].offset = 0;
  return keyed;
}

}  // namespace

Documents::Documents(uint64_t seed, int32_t block_size, KeyFault fault) : random_(seed) {
  const auto longest = static_cast<size_t>(kMaxBlocks * static_cast<uint64_t>(block_size));
  for (int i = 0; i < kDocuments; ++i) {
    Document document = draw();
    const size_t length = below(longest - 1) + 2;
    while (document.tokens.size() < length) {
      if (document.media.size() < 3 && below(6) == 0)
        append_media(document);
      else
        document.tokens.push_back(static_cast<TokenId>(below(5) == 0));
    }
    number(document, block_size);
    document.chain = KeyChain(block_size, SpanMap(as_keyed(document.media, fault)),
                              fault == KeyFault::kNoSalt ? "" : document.salt, document.lora_id);
    documents_.push_back(std::move(document));
  }
}

// Empty, or the beginning of an earlier one with the same or another salt.
Document Documents::draw() {
  Document document;
  if (!documents_.empty() && below(4) != 0) {
    const Document& earlier = documents_[below(documents_.size())];
    const size_t length = below(earlier.tokens.size() + 1);
    document.tokens.assign(earlier.tokens.begin(),
                           earlier.tokens.begin() + static_cast<std::ptrdiff_t>(length));
    for (const MediaItem& item : earlier.media)
      if (static_cast<size_t>(item.offset) + static_cast<size_t>(item.length) <= length)
        document.media.push_back(item);
    // The same tokens with an image one position later: only the keys tell these apart.
    if (!document.media.empty() && below(3) == 0) {
      MediaItem& last = document.media.back();
      const auto after = static_cast<size_t>(last.offset) + static_cast<size_t>(last.length);
      if (after < length && document.tokens[after] == 1) ++last.offset;
    }
    document.salt = earlier.salt;
    document.lora_id = earlier.lora_id;
  }
  if (below(4) == 0) document.salt = document.salt.empty() ? "s" : "";
  if (below(8) == 0) document.lora_id = 7;
  return document;
}

void Documents::append_media(Document& document) {
  const int which = below(8) == 0 ? 0 : 1 + static_cast<int>(below(2));
  document.media.push_back(image(which, document.tokens.size()));
  document.tokens.insert(document.tokens.end(), static_cast<size_t>(document.media.back().length),
                         1);
  document.tokens.push_back(1);  // what follows may look like one more of its tokens
}

void Documents::number(Document& document, int32_t block_size) {
  const std::string start = document.salt + "|" + std::to_string(document.lora_id);
  int before =
      numbers_.emplace(std::pair(-1, start), static_cast<int>(numbers_.size())).first->second;
  bool is_private = false;
  for (size_t p = 0; p < document.tokens.size(); ++p) {
    std::string what = "t" + std::to_string(document.tokens[p]);
    for (const MediaItem& item : document.media) {
      const int64_t row = static_cast<int64_t>(p) - item.offset;
      if (row < 0 || row >= item.length) continue;
      what += " image " + std::to_string(item.id.bytes[0]) + " at " + std::to_string(row);
      if (item.id.empty()) {  // equal to nothing else, not even to itself elsewhere
        what += " of document " + std::to_string(documents_.size());
        is_private = true;
      }
    }
    before =
        numbers_.emplace(std::pair(before, what), static_cast<int>(numbers_.size())).first->second;
    document.prefix.push_back(before);
    if ((p + 1) % static_cast<size_t>(block_size) == 0)
      document.block.push_back(is_private ? kPrivate : before);
  }
}

int64_t Documents::agree(int a, int b) const {
  const auto& first = (*this)[a].prefix;
  const auto& second = (*this)[b].prefix;
  return std::ranges::mismatch(first, second).in1 - first.begin();
}

}  // namespace mmcore::proof
