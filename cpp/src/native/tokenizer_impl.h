// What a Tokenizer is made of, and the reader of tokenizer.json.
#pragma once

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "mmcore/native.h"
#include "native/byte_pairs.h"
#include "native/json.h"

namespace mmcore::native {

struct AddedToken {
  std::string content;
  TokenId id = -1;
  bool special = false;
  bool normalized = false;
};

struct Tokenizer::Impl {
  std::unordered_map<std::string, TokenId> vocab;  // added tokens included
  std::vector<std::string> bytes;                  // what each id stands for
  std::vector<bool> known, special;                // by id
  std::vector<AddedToken> added;                   // longest first
  std::array<bool, 256> begins_added{};            // first bytes of added tokens
  BytePairs pairs;
  bool ignore_merges = false;  // a word that is an entry is taken whole
  bool add_prefix_space = false;
  std::vector<TokenId> prefix, suffix;  // what is put around a prompt
  // The decoder takes up to `strip` of this character away from the beginning of a text.
  std::string strip_character;
  int32_t strip = 0;

  Status read(const Json& json);

  void encode_plain(std::string_view text, std::vector<TokenId>& out) const;
  /// Splits `text` at added tokens of one kind (normalised or not), and encodes the rest with the
  /// next kind, at last with the model.
  void encode_around_added(std::string_view text, bool normalized, bool parse_special,
                           std::vector<TokenId>& out) const;

 private:
  Status read_added(const Json& tokens);
  Status read_model(const Json& model);
  Status read_merges(const Json& merges);
  Status read_pre_tokenizer(const Json& json);
  Status read_post_processor(const Json& json);
  Status read_template(const Json& json);
  Status read_decoder(const Json& json);
  Status add_entry(const std::string& entry, const Json& id);
};

}  // namespace mmcore::native
