#include "native/utf8.h"

#include <gtest/gtest.h>

namespace mmcore::native {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

std::string lossy(std::string_view bytes) {
  std::string out;
  EXPECT_EQ(append_lossy(bytes, false, out), bytes.size());
  return out;
}

TEST(Utf8, every_code_point_survives_a_round_trip) {
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string bytes;
    append_utf8(code, bytes);
    ASSERT_EQ(utf8_length(bytes), bytes.size()) << code;
    ASSERT_EQ(utf8_code(bytes, bytes.size()), code);
  }
}

TEST(Utf8, refuses_overlong_forms_surrogates_and_what_is_too_large) {
  for (const char* bytes :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xF0\x9F\x98"})
    EXPECT_FALSE(is_utf8(bytes)) << bytes;
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
}

TEST(Utf8, replaces_each_broken_piece_once) {
  const std::string r = kReplacement;
  EXPECT_EQ(lossy("a\xF0\x9F\x98z"), "a" + r + "z") << "the longest beginning is one piece";
  EXPECT_EQ(lossy("\xE2\x82\xE2\x82\xAC"), r + "\xE2\x82\xAC");
  EXPECT_EQ(lossy("\x80\x80"), r + r);
  EXPECT_EQ(lossy("\xED\xA0\x80"), r + r + r) << "a surrogate's bytes begin nothing";
}

TEST(Utf8, holds_back_what_may_still_become_a_character) {
  std::string out;
  EXPECT_EQ(append_lossy("ab\xF0\x9F", true, out), 2u);
  EXPECT_EQ(out, "ab");
  out.clear();
  EXPECT_EQ(append_lossy("\xF0\x41", true, out), 2u) << "nothing can make this one whole";
  EXPECT_EQ(out, std::string(kReplacement) + "A");
}

}  // namespace
}  // namespace mmcore::native
