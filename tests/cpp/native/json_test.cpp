#include "native/json.h"

#include <gtest/gtest.h>

namespace mmcore::native {
namespace {

std::string error_of(std::string_view text) {
  const auto parsed = Json::parse(text);
  return parsed.ok() ? "" : parsed.status().message();
}

TEST(Json, reads_every_kind_of_value) {
  const auto parsed = Json::parse(R"( {"a": [1, -2.5e1, true, false, null, "x"], "b": {}} )");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const Json& json = parsed.value();
  const Json::Array& a = json["a"].as_array();
  ASSERT_EQ(a.size(), 6u);
  EXPECT_EQ(a[0].as_int(), 1);
  EXPECT_EQ(a[0].as_double(), 1.0);
  EXPECT_FALSE(a[1].is_int());
  EXPECT_EQ(a[1].as_double(), -25.0);
  EXPECT_TRUE(a[2].as_bool());
  EXPECT_FALSE(a[3].as_bool());
  EXPECT_TRUE(a[4].is_null());
  EXPECT_EQ(a[5].as_string(), "x");
  EXPECT_TRUE(json["b"].as_object().empty());
  EXPECT_TRUE(json["c"].is_null()) << "a member that is not there";
  EXPECT_TRUE(a[0]["c"].is_null()) << "a member of what is no object";
}

TEST(Json, keeps_all_bits_of_integers) {
  EXPECT_EQ(Json::parse("9223372036854775807").value().as_int(), INT64_MAX);
  EXPECT_EQ(Json::parse("-9223372036854775808").value().as_int(), INT64_MIN);
  EXPECT_FALSE(Json::parse("9223372036854775808").value().is_int()) << "one more is a double";
}

TEST(Json, reads_escapes_and_characters_beyond_16_bits) {
  EXPECT_EQ(Json::parse(R"("\"\\\/\b\f\n\r\tA\u00e9\u20ac\ud83d\ude00")").value().as_string(),
            "\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
}

TEST(Json, refuses_what_is_no_json_and_says_where) {
  EXPECT_NE(error_of("").find("byte 0"), std::string::npos);
  EXPECT_NE(error_of("[1, 2").find("expected ',' or ']'"), std::string::npos);
  EXPECT_NE(error_of("[1] 2").find("byte 4: text behind the end"), std::string::npos);
  for (const char* text : {"{",
                           "{1: 2}",
                           "{\"a\" 1}",
                           "{\"a\": 1,}",
                           "[1,]",
                           "01",
                           "1.",
                           "-",
                           "1e",
                           "tru",
                           "nul",
                           "+1",
                           "\"a",
                           "\"\n\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "'a'",
                           "\"\\ud800\"",
                           "\"\\udc00\"",
                           "\"\\ud800\\u0041\"",
                           "\"\xff\"",
                           "\"\xc0\x80\"",
                           "\"\xed\xa0\x80\"",
                           "NaN",
                           "1e999"})
    EXPECT_NE(error_of(text), "") << text;
}

TEST(Json, refuses_a_key_twice) {
  EXPECT_NE(error_of(R"({"a": 1, "b": {"x": 1, "x": 2}})").find("'x' twice"), std::string::npos);
}

TEST(Json, refuses_deep_nesting_instead_of_overflowing_the_stack) {
  EXPECT_NE(error_of(std::string(100000, '[')).find("nested"), std::string::npos);
  EXPECT_EQ(error_of(std::string(60, '[') + std::string(60, ']')), "");
}

}  // namespace
}  // namespace mmcore::native
