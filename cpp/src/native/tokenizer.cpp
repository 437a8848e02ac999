#include <algorithm>
#include <utility>

#include "native/pre_tokenizer.h"
#include "native/tokenizer_impl.h"
#include "native/utf8.h"

namespace mmcore::native {

void Tokenizer::Impl::encode_plain(std::string_view text, std::vector<TokenId>& out) const {
  if (text.empty()) return;
  std::string prefixed;
  if (add_prefix_space && text[0] != ' ') {
    prefixed.reserve(text.size() + 1);
    prefixed.append(1, ' ').append(text);
    text = prefixed;
  }
  for (const std::string_view word : split_words(text)) {
    if (ignore_merges) {
      std::string entry;
      for (const char c : word) entry += character_of_byte(static_cast<uint8_t>(c));
      if (const auto found = vocab.find(entry); found != vocab.end()) {
        out.push_back(found->second);
        continue;
      }
    }
    pairs.encode(word, out);
  }
}

void Tokenizer::Impl::encode_around_added(std::string_view text, bool normalized,
                                          bool parse_special, std::vector<TokenId>& out) const {
  const auto encode_rest = [&](std::string_view rest) {
    if (normalized)
      encode_plain(rest, out);
    else
      encode_around_added(rest, true, parse_special, out);
  };
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    if (!begins_added[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    // The longest is first.
    const auto found = std::ranges::find_if(added, [&](const AddedToken& token) {
      return token.normalized == normalized && text.substr(at).starts_with(token.content);
    });
    if (found == added.end()) {
      ++at;
    } else if (found->special && !parse_special) {
      at += found->content.size();
    } else {
      encode_rest(text.substr(begin, at - begin));
      out.push_back(found->id);
      begin = at += found->content.size();
    }
  }
  encode_rest(text.substr(begin));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text,
                                               const EncodeOptions& options) const {
  if (!is_utf8(text)) return Status::invalid_argument("the text is not UTF-8");
  std::vector<TokenId> ids;
  if (options.add_special_tokens) ids = impl_->prefix;
  impl_->encode_around_added(text, false, options.parse_special_tokens, ids);
  if (options.add_special_tokens) ids.insert(ids.end(), impl_->suffix.begin(), impl_->suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  TextStream stream(*this, skip_special_tokens);
  std::string text;
  for (const TokenId id : ids) text += stream.push(id);
  return text + stream.finish();
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->bytes.size()); }

TokenId Tokenizer::token_id(std::string_view token) const {
  const auto found = impl_->vocab.find(std::string(token));
  return found == impl_->vocab.end() ? -1 : found->second;
}

struct TextStream::Impl {
  const Tokenizer::Impl* tokenizer;
  bool skip_special;
  std::string pending;  // the beginning of a character
  int32_t to_strip;     // characters that may still be stripped; 0 once one was kept

  std::string take(bool partial) {
    std::string text;
    pending.erase(0, append_lossy(pending, partial, text));
    while (to_strip > 0 && !text.empty()) {
      if (!text.starts_with(tokenizer->strip_character)) {
        to_strip = 0;
        break;
      }
      text.erase(0, tokenizer->strip_character.size());
      --to_strip;
    }
    return text;
  }
};

TextStream::TextStream(const Tokenizer& tokenizer, bool skip_special_tokens)
    : impl_(std::make_unique<Impl>(
          Impl{tokenizer.impl_.get(), skip_special_tokens, {}, tokenizer.impl_->strip})) {}
TextStream::~TextStream() = default;
TextStream::TextStream(TextStream&&) noexcept = default;
TextStream& TextStream::operator=(TextStream&&) noexcept = default;

std::string TextStream::push(TokenId id) {
  const Tokenizer::Impl& tokenizer = *impl_->tokenizer;
  const auto index = static_cast<size_t>(id);
  if (id < 0 || index >= tokenizer.bytes.size()) return {};
  if (impl_->skip_special && tokenizer.special[index]) return {};
  impl_->pending += tokenizer.bytes[index];
  return impl_->take(true);
}

std::string TextStream::finish() { return impl_->take(false); }

}  // namespace mmcore::native
