#include "native/safetensors.h"

#include <gtest/gtest.h>

#include "native/folder.h"

namespace mmcore::native {
namespace {

using testing::Folder;
using testing::safetensors;

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  int64_t begin, int64_t end) {
  return "\"" + name + "\": {\"dtype\": \"" + dtype + "\", \"shape\": " + shape +
         ", \"data_offsets\": [" + std::to_string(begin) + ", " + std::to_string(end) + "]}";
}

class Safetensors : public ::testing::Test {
 protected:
  std::string refusal(const std::string& header, size_t data_bytes) {
    folder.write("f", safetensors(header, data_bytes));
    const auto file = SafetensorsFile::open(folder.file("f"));
    if (file.ok()) return "";
    EXPECT_EQ(file.status().code(), StatusCode::kInvalidArgument);
    return file.status().message();
  }
  void expect_refusal(const std::string& header, size_t data_bytes, const std::string& words) {
    const std::string message = refusal(header, data_bytes);
    EXPECT_NE(message.find(words), std::string::npos) << header << " gave: " << message;
  }
  Folder folder;
};

TEST_F(Safetensors, reads_tensors_of_all_shapes) {
  const std::string header =
      "{\"__metadata__\": {\"format\": \"pt\"}, " + entry("b", "F32", "[2, 3]", 2, 26) + ", " +
      entry("a", "BF16", "[]", 0, 2) + ", " + entry("empty", "F16", "[0, 4]", 26, 26) + "}";
  EXPECT_EQ(refusal(header, 26), "");
  const auto file = SafetensorsFile::open(folder.file("f"));
  const auto& tensors = file.value().tensors();
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(describe(tensors.find("b")->second), "F32 [2, 3]");
  EXPECT_EQ(tensors.find("b")->second.data, tensors.find("a")->second.data + 2);
  EXPECT_EQ(tensors.find("empty")->second.bytes, 0);
}

TEST_F(Safetensors, refuses_files_that_are_none) {
  folder.write("short", "abc");
  EXPECT_FALSE(SafetensorsFile::open(folder.file("short")).ok());
  folder.write("empty", "");
  EXPECT_FALSE(SafetensorsFile::open(folder.file("empty")).ok());
  const auto missing = SafetensorsFile::open(folder.file("missing"));
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_EQ(missing.status().message().find(folder.path()), std::string::npos)
      << "no path of the host in a message";
  EXPECT_FALSE(SafetensorsFile::open(folder.path()).ok()) << "a folder";
  folder.write("huge", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}"));
  EXPECT_NE(SafetensorsFile::open(folder.file("huge")).status().message().find("cut off"),
            std::string::npos);
}

TEST_F(Safetensors, refuses_headers_that_are_no_lists_of_tensors) {
  expect_refusal("{", 0, "invalid JSON");
  expect_refusal("[]", 0, "an array, expected an object");
  expect_refusal("{\"a\": 3}", 0, "dtype is no string");
  expect_refusal("{" + entry("a", "F32", "[1]", 0, 4) + ", " + entry("a", "F32", "[1]", 4, 8) + "}",
                 8, "'a' twice");
  expect_refusal("{" + entry("a", "F5", "[1]", 0, 4) + "}", 4, "unknown dtype 'F5'");
  expect_refusal("{" + entry("a", "F32", "[-1]", 0, 4) + "}", 4, "shape");
  expect_refusal("{" + entry("a", "F32", "[1.0]", 0, 4) + "}", 4, "shape");
  expect_refusal("{" + entry("a", "F32", "[4294967296, 4294967296]", 0, 4) + "}", 4, "shape");
}

TEST_F(Safetensors, refuses_offsets_outside_overlapping_or_with_gaps) {
  expect_refusal("{" + entry("a", "F32", "[2]", 0, 8) + "}", 4, "bytes 0 to 8");
  expect_refusal("{" + entry("a", "F32", "[1]", -4, 0) + "}", 4, "bytes -4 to 0");
  expect_refusal("{" + entry("a", "F32", "[1]", 4, 0) + "}", 4, "bytes 4 to 0");
  expect_refusal("{" + entry("a", "F32", "[2]", 0, 4) + "}", 4, "takes 8 bytes, but has 4");
  expect_refusal("{" + entry("a", "F32", "[1]", 0, 4) + ", " + entry("b", "F32", "[1]", 2, 6) + "}",
                 6, "inside of another");
  expect_refusal(
      "{" + entry("a", "F32", "[1]", 0, 4) + ", " + entry("b", "F32", "[1]", 6, 10) + "}", 10,
      "gap");
  expect_refusal("{" + entry("a", "F32", "[1]", 0, 4) + "}", 5, "belong to none");
}

TEST_F(Safetensors, an_index_says_where_every_tensor_is) {
  folder.write("x.safetensors", safetensors("{" + entry("a", "F32", "[1]", 0, 4) + "}", 4));
  folder.write("y.safetensors", safetensors("{" + entry("b", "F32", "[1]", 0, 4) + "}", 4));
  const auto open = [&](const std::string& map) {
    folder.write("model.safetensors.index.json", "{\"weight_map\": " + map + "}");
    const auto files = open_checkpoint_tensors(folder.path());
    return files.ok() ? "files: " + std::to_string(files.value().size()) : files.status().message();
  };
  EXPECT_EQ(open(R"({"a": "x.safetensors", "b": "y.safetensors"})"), "files: 2");
  EXPECT_NE(open(R"({"a": "x.safetensors", "b": "x.safetensors"})").find("'b' is not in"),
            std::string::npos);
  EXPECT_NE(open(R"({"a": "z.safetensors"})").find("'z.safetensors'"), std::string::npos);
  EXPECT_NE(open(R"({"a": "../x.safetensors"})").find("beside the index"), std::string::npos);
  EXPECT_NE(open("3").find("no weight_map"), std::string::npos);
  folder.write("x.safetensors", safetensors("{" + entry("a", "F32", "[1]", 0, 4) + ", " +
                                                entry("c", "F32", "[1]", 4, 8) + "}",
                                            8));
  EXPECT_NE(open(R"({"a": "x.safetensors"})").find("'c' of x.safetensors is not listed"),
            std::string::npos);
}

}  // namespace
}  // namespace mmcore::native
