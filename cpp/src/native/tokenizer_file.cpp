#include <algorithm>
#include <functional>

#include "native/config_reader.h"
#include "native/tokenizer_impl.h"

namespace mmcore::native {

namespace {

constexpr int64_t kMaxVocab = 1 << 22;

Status refuse(const std::string& what) {
  return Status::unsupported("tokenizer.json: " + what +
                             " is not supported by the native tokenizer; bring token ids");
}

Status malformed(const std::string& what) {
  return Status::invalid_argument("tokenizer.json: " + what);
}

bool is_type(const Json& json, std::string_view type) {
  return json["type"].is_string() && json["type"].as_string() == type;
}

std::string type_of(const Json& json) {
  return json["type"].is_string() ? json["type"].as_string() : json.kind();
}

// Whether a member says nothing: missing, null, false, 0 or "".
bool is_off(const Json& value) {
  return value.is_null() || (value.is_bool() && !value.as_bool()) ||
         (value.is_number() && value.as_double() == 0) ||
         (value.is_string() && value.as_string().empty());
}

bool is_on(const Json& value) { return value.is_bool() && value.as_bool(); }

}  // namespace

Status Tokenizer::Impl::read(const Json& json) {
  if (!json["normalizer"].is_null())
    return refuse("a normalizer (" + type_of(json["normalizer"]) + ")");
  MMCORE_RETURN_IF_ERROR(read_pre_tokenizer(json["pre_tokenizer"]));
  MMCORE_RETURN_IF_ERROR(read_model(json["model"]));
  MMCORE_RETURN_IF_ERROR(read_added(json["added_tokens"]));
  MMCORE_RETURN_IF_ERROR(read_post_processor(json["post_processor"]));
  return read_decoder(json["decoder"]);
}

Status Tokenizer::Impl::add_entry(const std::string& entry, const Json& id) {
  if (!id.is_int() || id.as_int() < 0 || id.as_int() >= kMaxVocab)
    return malformed("the id of '" + entry + "' is no integer below " + std::to_string(kMaxVocab));
  const auto index = static_cast<size_t>(id.as_int());
  const auto [at, fresh] = vocab.emplace(entry, static_cast<TokenId>(index));
  if (!fresh && at->second != static_cast<TokenId>(index))
    return malformed("'" + entry + "' has two ids");
  if (index >= bytes.size()) {
    bytes.resize(index + 1);
    known.resize(index + 1);
    special.resize(index + 1);
  }
  if (known[index] && fresh) return malformed("two entries have the id " + std::to_string(index));
  known[index] = true;
  bytes[index] = bytes_of_entry(entry);
  return {};
}

Status Tokenizer::Impl::read_model(const Json& model) {
  if (!is_type(model, "BPE")) return refuse("the model '" + type_of(model) + "'");
  for (const char* option :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"})
    if (!is_off(model[option])) return refuse(std::string("the model's ") + option);
  ignore_merges = is_on(model["ignore_merges"]);
  if (!model["vocab"].is_object()) return malformed("the model has no vocab");
  for (const auto& [entry, id] : model["vocab"].as_object())
    MMCORE_RETURN_IF_ERROR(add_entry(entry, id));
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = vocab.find(character_of_byte(static_cast<uint8_t>(byte)));
    if (found == vocab.end())
      return refuse("a vocab without an entry for byte " + std::to_string(byte));
    pairs.set_byte(static_cast<uint8_t>(byte), found->second);
  }
  return read_merges(model["merges"]);
}

Status Tokenizer::Impl::read_merges(const Json& merges) {
  if (!merges.is_array()) return malformed("the model has no merges");
  int32_t rank = 0;
  for (const Json& merge : merges.as_array()) {
    // ["a", "b"], or "a b" in older files
    std::string left, right;
    if (merge.is_array() && merge.as_array().size() == 2 && merge.as_array()[0].is_string() &&
        merge.as_array()[1].is_string()) {
      left = merge.as_array()[0].as_string();
      right = merge.as_array()[1].as_string();
    } else if (merge.is_string() && std::ranges::count(merge.as_string(), ' ') == 1) {
      const size_t space = merge.as_string().find(' ');
      left = merge.as_string().substr(0, space);
      right = merge.as_string().substr(space + 1);
    } else {
      return malformed("merge " + std::to_string(rank) + " is no pair");
    }
    const auto l = vocab.find(left), r = vocab.find(right), both = vocab.find(left + right);
    if (l == vocab.end() || r == vocab.end() || both == vocab.end())
      return malformed("merge " + std::to_string(rank) + " ('" + left + "' and '" + right +
                       "') names what is not in the vocab");
    pairs.add_merge(l->second, r->second, rank++, both->second);
  }
  return {};
}

Status Tokenizer::Impl::read_added(const Json& tokens) {
  if (tokens.is_null()) return {};
  if (!tokens.is_array()) return malformed("added_tokens is " + std::string(tokens.kind()));
  for (const Json& token : tokens.as_array()) {
    if (!token["content"].is_string() || token["content"].as_string().empty())
      return malformed("an added token has no content");
    AddedToken made;
    made.content = token["content"].as_string();
    for (const char* option : {"single_word", "lstrip", "rstrip"})
      if (!is_off(token[option])) return refuse("'" + made.content + "' with " + option);
    MMCORE_RETURN_IF_ERROR(add_entry(made.content, token["id"]));
    made.id = static_cast<TokenId>(token["id"].as_int());
    made.special = is_on(token["special"]);
    made.normalized = is_on(token["normalized"]);
    special[static_cast<size_t>(made.id)] = made.special;
    begins_added[static_cast<uint8_t>(made.content[0])] = true;
    added.push_back(std::move(made));
  }
  std::ranges::stable_sort(added, std::greater<>(),
                           [](const AddedToken& token) { return token.content.size(); });
  return {};
}

Status Tokenizer::Impl::read_pre_tokenizer(const Json& json) {
  if (!is_type(json, "ByteLevel")) return refuse("the pre-tokenizer '" + type_of(json) + "'");
  if (!json["use_regex"].is_null() && !is_on(json["use_regex"]))
    return refuse("a pre-tokenizer without its pattern");
  add_prefix_space = json["add_prefix_space"].is_null() || is_on(json["add_prefix_space"]);
  return {};
}

Status Tokenizer::Impl::read_post_processor(const Json& json) {
  if (json.is_null() || is_type(json, "ByteLevel")) return {};  // the latter moves offsets only
  if (is_type(json, "TemplateProcessing")) return read_template(json);
  if (!is_type(json, "Sequence") || !json["processors"].is_array())
    return refuse("the post-processor '" + type_of(json) + "'");
  int templates = 0;
  for (const Json& part : json["processors"].as_array()) {
    if (is_type(part, "Sequence") || (is_type(part, "TemplateProcessing") && ++templates > 1))
      return refuse("a post-processor of several templates");
    MMCORE_RETURN_IF_ERROR(read_post_processor(part));
  }
  return {};
}

Status Tokenizer::Impl::read_template(const Json& json) {
  if (!json["single"].is_array()) return malformed("the post-processor has no single template");
  bool behind = false;
  for (const Json& piece : json["single"].as_array()) {
    if (piece["Sequence"].is_object()) {
      if (behind) return refuse("a template with the text twice");
      behind = true;
      continue;
    }
    const Json& name = piece["SpecialToken"]["id"];
    const Json& ids = name.is_string() ? json["special_tokens"][name.as_string()]["ids"] : name;
    if (!ids.is_array()) return malformed("a template's special token has no ids");
    for (const Json& id : ids.as_array()) {
      if (!id.is_int() || id.as_int() < 0 || id.as_int() >= static_cast<int64_t>(bytes.size()))
        return malformed("a template's special token is not in the vocab");
      (behind ? suffix : prefix).push_back(static_cast<TokenId>(id.as_int()));
    }
  }
  return behind ? Status() : malformed("a template without the text");
}

Status Tokenizer::Impl::read_decoder(const Json& json) {
  if (is_type(json, "ByteLevel")) return {};
  const Json& parts = json["decoders"];
  if (!is_type(json, "Sequence") || !parts.is_array() || parts.as_array().empty() ||
      parts.as_array().size() > 2 || !is_type(parts.as_array()[0], "ByteLevel"))
    return refuse("the decoder '" + type_of(json) + "'");
  if (parts.as_array().size() == 1) return {};
  const Json& last = parts.as_array()[1];
  if (!is_type(last, "Strip") || !last["content"].is_string() || !last["start"].is_int())
    return refuse("the decoder '" + type_of(last) + "'");
  if (!is_off(last["stop"])) return refuse("a decoder that strips the end of a text");
  strip_character = last["content"].as_string();
  strip = static_cast<int32_t>(std::clamp<int64_t>(last["start"].as_int(), 0, 1 << 20));
  return strip_character.empty() ? malformed("the decoder strips no character") : Status();
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& folder) {
  const Result<Json> json = read_config(folder, "tokenizer.json");
  if (!json.ok()) return json.status();
  auto impl = std::make_unique<Impl>();
  MMCORE_RETURN_IF_ERROR(impl->read(json.value()));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

}  // namespace mmcore::native
