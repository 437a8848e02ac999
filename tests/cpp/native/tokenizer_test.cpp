// Equality with Hugging Face tokenizers is tests/python/native's; here refusals and the parts.
#include <gtest/gtest.h>

#include <algorithm>

#include "mmcore/native.h"
#include "native/byte_pairs.h"
#include "native/folder.h"
#include "native/pre_tokenizer.h"

namespace mmcore::native {
namespace {

using testing::bundled;
using testing::Folder;

std::unique_ptr<Tokenizer> bundled_tokenizer() { return Tokenizer::load(bundled()).value(); }

TEST(Tokenizer, splits_words_as_the_pattern_does) {
  using Words = std::vector<std::string_view>;
  EXPECT_EQ(split_words("It's  a\ttest 12x!! \n"),
            (Words{"It", "'s", " ", " a", "\t", "test", " 12", "x", "!!", " \n"}));
  EXPECT_EQ(split_words("  x"), (Words{" ", " x"}));
  EXPECT_EQ(split_words("x   "), (Words{"x", "   "}));
  EXPECT_EQ(split_words("\n\nx"), (Words{"\n", "\n", "x"})) << "only U+0020 joins a word";
  EXPECT_EQ(split_words("'Sx"), (Words{"'", "Sx"}));
  EXPECT_EQ(split_words(""), Words{});
}

TEST(Tokenizer, merges_by_rank_and_then_by_place) {
  BytePairs pairs;
  for (int byte = 0; byte < 256; ++byte) pairs.set_byte(static_cast<uint8_t>(byte), byte);
  pairs.add_merge('b', 'c', 0, 300);
  pairs.add_merge('a', 'b', 1, 301);
  pairs.add_merge('a', 'a', 2, 302);
  pairs.add_merge(302, 302, 3, 303);
  const auto encode = [&](std::string_view word) {
    std::vector<TokenId> ids;
    pairs.encode(word, ids);
    return ids;
  };
  EXPECT_EQ(encode("abc"), (std::vector<TokenId>{'a', 300})) << "the smaller rank first";
  EXPECT_EQ(encode("abab"), (std::vector<TokenId>{301, 301}));
  EXPECT_EQ(encode("aaaaa"), (std::vector<TokenId>{303, 'a'})) << "from the left";
  EXPECT_EQ(encode(""), std::vector<TokenId>{});
}

TEST(Tokenizer, entries_stand_for_bytes_or_for_themselves) {
  for (int byte = 0; byte < 256; ++byte) {
    const auto b = static_cast<uint8_t>(byte);
    EXPECT_EQ(bytes_of_entry(character_of_byte(b)), std::string(1, static_cast<char>(b)));
  }
  EXPECT_EQ(bytes_of_entry("\xC4\xA0"), " ");
  EXPECT_EQ(bytes_of_entry("a b"), "a b") << "a space is not of the alphabet";
}

TEST(Tokenizer, special_tokens_are_parsed_only_if_asked_for) {
  const auto tokenizer = bundled_tokenizer();
  const TokenId image = tokenizer->token_id("<image>");
  EXPECT_EQ(image, 4);
  EXPECT_EQ(tokenizer->token_id("no such entry"), -1);
  const auto parsed = tokenizer->encode("<image>").value();
  EXPECT_EQ(parsed, (std::vector<TokenId>{1, image}));
  const auto typed =
      tokenizer->encode("<image>", {.add_special_tokens = false, .parse_special_tokens = false});
  EXPECT_GT(typed.value().size(), 1u);
  EXPECT_EQ(std::ranges::count(typed.value(), image), 0);
  EXPECT_EQ(tokenizer->decode(typed.value()), "<image>");
  EXPECT_EQ(tokenizer->decode(parsed), "");
  EXPECT_EQ(tokenizer->decode(parsed, false), "<s><image>");
}

TEST(Tokenizer, a_stream_never_ends_inside_a_character) {
  const auto tokenizer = bundled_tokenizer();
  const std::string text = "na\xC3\xAFve \xF0\x9F\x98\x80!";
  const auto ids = tokenizer->encode(text);
  TextStream stream(*tokenizer);
  std::string heard;
  for (const TokenId id : ids.value()) {
    const std::string piece = stream.push(id);
    EXPECT_EQ(piece.find("\xEF\xBF\xBD"), std::string::npos);
    heard += piece;
  }
  heard += stream.finish();
  EXPECT_EQ(heard, text);
  TextStream broken(*tokenizer);
  const auto emoji = tokenizer->encode("\xF0\x9F\x98\x80", {.add_special_tokens = false}).value();
  ASSERT_GT(emoji.size(), 1u) << "the test needs a character of several tokens";
  EXPECT_EQ(broken.push(emoji[0]), "");
  EXPECT_EQ(broken.finish(), "\xEF\xBF\xBD");
}

TEST(Tokenizer, ids_that_it_does_not_know_are_left_out) {
  const auto tokenizer = bundled_tokenizer();
  const std::vector<TokenId> ids = {-1, 37, 1 << 29, tokenizer->vocab_size()};
  EXPECT_EQ(tokenizer->decode(ids), "A");
}

TEST(Tokenizer, refuses_text_that_is_not_utf8) {
  EXPECT_EQ(bundled_tokenizer()->encode("a\xff").status().code(), StatusCode::kInvalidArgument);
}

struct Edit {
  const char* from;
  const char* to;
  StatusCode code;
  const char* words;
};

TEST(Tokenizer, refuses_what_it_does_not_know_instead_of_guessing) {
  constexpr auto kUnsupported = StatusCode::kUnsupported;
  constexpr auto kInvalid = StatusCode::kInvalidArgument;
  const Edit edits[] = {
      {"\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", kUnsupported, "NFC"},
      {"\"type\": \"ByteLevel\"", "\"type\": \"Metaspace\"", kUnsupported, "Metaspace"},
      {"\"use_regex\": true", "\"use_regex\": false", kUnsupported, "pattern"},
      {"\"type\": \"BPE\"", "\"type\": \"Unigram\"", kUnsupported, "Unigram"},
      {"\"byte_fallback\": false", "\"byte_fallback\": true", kUnsupported, "byte_fallback"},
      {"\"dropout\": null", "\"dropout\": 0.5", kUnsupported, "dropout"},
      {"\"lstrip\": false", "\"lstrip\": true", kUnsupported, "lstrip"},
      {"\"type\": \"TemplateProcessing\"", "\"type\": \"RobertaProcessing\"", kUnsupported,
       "RobertaProcessing"},
      {"\"stop\": 0", "\"stop\": 1", kUnsupported, "strips the end"},
      {"\"type\": \"Strip\"", "\"type\": \"Fuse\"", kUnsupported, "Fuse"},
      {"\"!\": 5", "\"!\": 6", kInvalid, "the id 6"},
      {"\"!\": 5", "\"!\": -5", kInvalid, "'!'"},
      {"\"!\": 5", "\"!!!!!!\": 5", kUnsupported, "byte 33"},
      {"\"vocab\": {", "\"vocab\": 3, \"v\": {", kInvalid, "no vocab"},
  };
  for (const Edit& edit : edits) {
    const Folder folder;
    std::filesystem::copy(bundled() + "/tokenizer.json", folder.file("tokenizer.json"));
    folder.edit("tokenizer.json", edit.from, edit.to);
    const auto loaded = Tokenizer::load(folder.path());
    ASSERT_FALSE(loaded.ok()) << edit.to;
    EXPECT_EQ(loaded.status().code(), edit.code) << loaded.status().message();
    EXPECT_NE(loaded.status().message().find(edit.words), std::string::npos)
        << edit.to << " gave: " << loaded.status().message();
  }
  EXPECT_EQ(Tokenizer::load("/no/such/folder").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace mmcore::native
