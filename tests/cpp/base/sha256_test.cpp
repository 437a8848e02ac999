#include "base/sha256.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace mmcore {
namespace {

std::span<const uint8_t> bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string hex(const Sha256::Digest& digest) {
  std::string text;
  for (const uint8_t byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

std::string hex_of(std::string_view message, Sha256Blocks blocks = fastest_sha256_blocks()) {
  Sha256 hash(blocks);
  hash.update(bytes(message));
  return hex(hash.finish());
}

void expect_the_digests_of_the_standard(Sha256Blocks blocks) {
  const auto digest = [blocks](std::string_view message) { return hex_of(message, blocks); };
  EXPECT_EQ(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                   "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"),
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  EXPECT_EQ(digest(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, gives_the_digests_of_the_standard) {
  expect_the_digests_of_the_standard(fastest_sha256_blocks());
}

TEST(Sha256, gives_them_without_special_instructions) {
  expect_the_digests_of_the_standard(sha256_blocks_scalar);
}

TEST(Sha256, special_instructions_are_used_where_there_are_some) {
  EXPECT_EQ(fastest_sha256_blocks() == sha256_blocks_scalar, !has_sha_instructions());
}

TEST(Sha256, all_ways_agree_on_any_length_state_and_alignment) {
  if (!has_sha_instructions()) GTEST_SKIP() << "this processor has no SHA instructions";
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::vector<uint8_t> memory(64 * 40 + 64);
  for (uint8_t& byte : memory) byte = static_cast<uint8_t>(random());
  for (int round = 0; round < 500; ++round) {
    std::array<uint32_t, 8> expected{};
    for (uint32_t& word : expected) word = static_cast<uint32_t>(random());
    std::array<uint32_t, 8> got = expected;
    const uint8_t* blocks = memory.data() + random() % 64;
    const size_t count = random() % 40;
    sha256_blocks_scalar(expected.data(), blocks, count);
    fastest_sha256_blocks()(got.data(), blocks, count);
    ASSERT_EQ(got, expected) << count << " blocks";
    const std::string_view message(reinterpret_cast<const char*>(blocks), random() % (64 * 40));
    ASSERT_EQ(hex_of(message), hex_of(message, sha256_blocks_scalar)) << message.size();
  }
}

TEST(Sha256, does_not_depend_on_how_the_message_is_cut) {
  std::string message;
  for (int i = 0; i < 200; ++i) message += static_cast<char>(i * 7);
  for (size_t length = 0; length <= message.size(); ++length) {
    const std::string_view part = std::string_view(message).substr(0, length);
    for (const size_t cut : {size_t{1}, size_t{55}, size_t{56}, size_t{63}, size_t{64}}) {
      Sha256 hash;
      for (size_t at = 0; at < length; at += cut) hash.update(bytes(part.substr(at, cut)));
      EXPECT_EQ(hex(hash.finish()), hex_of(part)) << length << " bytes cut by " << cut;
    }
  }
}

}  // namespace
}  // namespace mmcore
