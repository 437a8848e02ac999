#include "native/byte_pairs.h"

#include <functional>
#include <queue>
#include <tuple>

#include "native/utf8.h"

namespace mmcore::native {

namespace {

bool is_printable(uint32_t code) {
  return (code >= 33 && code <= 126) || (code >= 161 && code <= 172) ||
         (code >= 174 && code <= 255);
}

struct Alphabet {
  std::array<uint32_t, 256> code{};              // of a byte
  std::unordered_map<uint32_t, uint8_t> byte{};  // of a code
};

const Alphabet& alphabet() {
  static const Alphabet kAlphabet = [] {
    Alphabet made;
    uint32_t next = 256;  // bytes that are not printable move up
    for (uint32_t byte = 0; byte < 256; ++byte) {
      made.code[byte] = is_printable(byte) ? byte : next++;
      made.byte[made.code[byte]] = static_cast<uint8_t>(byte);
    }
    return made;
  }();
  return kAlphabet;
}

uint64_t key_of(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

std::string character_of_byte(uint8_t byte) {
  std::string character;
  append_utf8(alphabet().code[byte], character);
  return character;
}

std::string bytes_of_entry(std::string_view entry) {
  std::string bytes;
  for (std::string_view rest = entry; !rest.empty();) {
    const size_t length = utf8_length(rest);
    const auto found = alphabet().byte.find(utf8_code(rest, length));
    if (found == alphabet().byte.end()) return std::string(entry);
    bytes += static_cast<char>(found->second);
    rest.remove_prefix(length);
  }
  return bytes;
}

void BytePairs::add_merge(TokenId left, TokenId right, int32_t rank, TokenId merged) {
  merges_[key_of(left, right)] = {rank, merged};
}

const BytePairs::Merge* BytePairs::find(TokenId left, TokenId right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BytePairs::encode(std::string_view word, std::vector<TokenId>& out) const {
  // A list of tokens, each with its neighbours; one that was merged into the token before it is -1.
  struct Part {
    TokenId id;
    int32_t before, after;
  };
  const auto count = static_cast<int32_t>(word.size());
  std::vector<Part> parts;
  parts.reserve(word.size());
  for (int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(word[static_cast<size_t>(i)]);
    parts.push_back({bytes_[byte], i - 1, i + 1 < count ? i + 1 : -1});
  }
  const auto part = [&](int32_t i) -> Part& { return parts[static_cast<size_t>(i)]; };
  using Candidate = std::tuple<int32_t, int32_t, TokenId>;  // rank, place, merged
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](int32_t left) {
    if (left < 0 || part(left).after < 0) return;
    if (const Merge* merge = find(part(left).id, part(part(left).after).id))
      queue.emplace(merge->rank, left, merge->merged);
  };
  for (int32_t i = 0; i + 1 < count; ++i) consider(i);
  while (!queue.empty()) {
    const auto [rank, left, merged] = queue.top();
    queue.pop();
    if (part(left).id < 0 || part(left).after < 0) continue;
    const int32_t right = part(left).after;
    const Merge* merge = find(part(left).id, part(right).id);
    if (merge == nullptr || merge->merged != merged) continue;  // one of the two is another by now
    part(left) = {merged, part(left).before, part(right).after};
    if (part(right).after >= 0) part(part(right).after).before = left;
    part(right).id = -1;
    consider(part(left).before);
    consider(left);
  }
  for (const Part& p : parts)
    if (p.id >= 0) out.push_back(p.id);
}

}  // namespace mmcore::native
