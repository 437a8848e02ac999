#include "native/pre_tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "native/unicode_ranges.h"
#include "native/utf8.h"

namespace mmcore::native {

namespace {

enum class Kind : uint8_t { kLetter, kNumber, kSpace, kOther };

template <size_t N>
bool contains(const CodeRange (&ranges)[N], uint32_t code) {
  const CodeRange* after =
      std::upper_bound(std::begin(ranges), std::end(ranges), code,
                       [](uint32_t c, const CodeRange& range) { return c < range.first; });
  return after != std::begin(ranges) && code <= std::prev(after)->last;
}

Kind kind_of(uint32_t code) {
  if (contains(kLetters, code)) return Kind::kLetter;
  if (contains(kNumbers, code)) return Kind::kNumber;
  if (contains(kSpaces, code)) return Kind::kSpace;
  return Kind::kOther;
}

struct Character {
  size_t begin;
  Kind kind;
};

std::vector<Character> characters_of(std::string_view text) {
  std::vector<Character> characters;
  characters.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text.substr(at));
    characters.push_back({at, kind_of(utf8_code(text.substr(at), length))});
    at += length;
  }
  return characters;
}

// Characters of an English ending that begins with an apostrophe; 0 for none.
size_t ending(std::string_view text) {
  for (const std::string_view known : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
    if (text.starts_with(known)) return known.size();
  return 0;
}

}  // namespace

std::vector<std::string_view> split_words(std::string_view text) {
  const std::vector<Character> characters = characters_of(text);
  const size_t count = characters.size();
  const auto run_end = [&](size_t from) {
    size_t to = from;
    while (to < count && characters[to].kind == characters[from].kind) ++to;
    return to;
  };
  std::vector<std::string_view> words;
  for (size_t at = 0; at < count;) {
    const size_t byte = characters[at].begin;
    size_t end = at;
    if (const size_t length = ending(text.substr(byte)); length != 0) {
      end = at + length;  // ASCII: as many characters as bytes
    } else if (characters[at].kind != Kind::kSpace) {
      end = run_end(at);
    } else if (text[byte] == ' ' && at + 1 < count && characters[at + 1].kind != Kind::kSpace) {
      end = run_end(at + 1);
    } else {
      // Spaces, without the last one of several that a word follows.
      end = run_end(at);
      if (end < count && end - at > 1) --end;
    }
    const size_t stop = end < count ? characters[end].begin : text.size();
    words.push_back(text.substr(byte, stop - byte));
    at = end;
  }
  return words;
}

}  // namespace mmcore::native
