#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "mmcore/media.h"

namespace mmcore {
namespace {

using Frames = std::vector<std::string_view>;

TEST(ContentId, is_the_sha256_of_the_length_framed_pieces) {
  using namespace std::string_literals;
  const std::string framed = "\x02\0\0\0\0\0\0\0ab\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0c"s;
  Sha256 hash;
  hash.update({reinterpret_cast<const uint8_t*>(framed.data()), framed.size()});
  EXPECT_EQ(content_id(Frames{"ab", "", "c"}).bytes, hash.finish());
}

TEST(ContentId, differs_when_the_frames_differ_and_their_concatenation_does_not) {
  const std::set<ContentId> ids = {content_id(Frames{"ab", "c"}), content_id(Frames{"a", "bc"}),
                                   content_id(Frames{"abc"}),     content_id(Frames{"abc", ""}),
                                   content_id(Frames{"", "abc"}), content_id(Frames{"c", "ab"})};
  EXPECT_EQ(ids.size(), 6u);
}

TEST(ContentId, tells_shapes_of_the_same_pixels_apart) {
  const Frames wide = {"image", "uint8", "30x100", "RGB", "pixels", "config"};
  const Frames tall = {"image", "uint8", "100x30", "RGB", "pixels", "config"};
  EXPECT_NE(content_id(wide), content_id(tall));
}

TEST(ContentId, is_never_empty) {
  EXPECT_FALSE(content_id(Frames{}).empty());
  EXPECT_TRUE(ContentId{}.empty());
}

}  // namespace
}  // namespace mmcore
