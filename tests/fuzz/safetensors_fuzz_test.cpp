// The safetensors fuzzer's entry without libFuzzer: valid files, and what random changes make of
// them. The length of the header is mostly set right again, or nothing would get past it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <iterator>
#include <random>
#include <string>

#include "safetensors_entry.h"

namespace mmcore::fuzz {
namespace {

// More inputs than the default: MMCORE_FUZZ_INPUTS=10000000.
int64_t num_inputs() {
  const char* text = std::getenv("MMCORE_FUZZ_INPUTS");
  return text == nullptr ? 60'000 : std::strtoll(text, nullptr, 10);
}

// What a header is made of, and what breaks one.
constexpr const char* kWords[] = {"\"dtype\"",
                                  "\"F32\"",
                                  "\"BF16\"",
                                  "\"U8\"",
                                  "\"F64\"",
                                  "\"shape\"",
                                  "\"data_offsets\"",
                                  "\"__metadata__\"",
                                  "{",
                                  "}",
                                  "[",
                                  "]",
                                  ":",
                                  ",",
                                  "0",
                                  "1",
                                  "-1",
                                  "2",
                                  "4",
                                  "8",
                                  "16",
                                  "9223372036854775807",
                                  "9223372036854775808",
                                  "4294967296",
                                  "281474976710656",
                                  "1e3",
                                  "0.5",
                                  "null",
                                  "true",
                                  "\"\\u0000\"",
                                  "\"\\ud800\"",
                                  "\"a\"",
                                  "\"\xff\"",
                                  "[[[[[[[["};

class Writer {
 public:
  explicit Writer(uint64_t seed) : random_(seed) {}

  uint64_t below(uint64_t n) { return random_() % n; }

  /// Header and data of a file that is right, nearly always.
  std::string valid(std::string& data) {
    std::string header = "{";
    data.clear();
    for (uint64_t i = 0, count = below(4); i < count; ++i) {
      static constexpr std::pair<const char*, int> kTypes[] = {
          {"F32", 4}, {"BF16", 2}, {"I64", 8}, {"U8", 1}};
      const auto& [type, width] = kTypes[below(std::size(kTypes))];
      const uint64_t rows = below(4), columns = 1 + below(3);
      // Now and then data of the right length in the wrong place.
      const size_t shift = below(8) == 0 ? below(8) : 0;
      const size_t begin = data.size();
      data.resize(begin + rows * columns * static_cast<uint64_t>(width), 'x');
      header += (i > 0 ? "," : "") + std::string("\"t") + std::to_string(i) + R"(":{"dtype":")" +
                type + R"(","shape":[)" + std::to_string(rows) + "," + std::to_string(columns) +
                R"(],"data_offsets":[)" + std::to_string(begin + shift) + "," +
                std::to_string(data.size() + shift) + "]}";
    }
    if (below(3) == 0)
      header += std::string(header.size() > 1 ? "," : "") + R"("__metadata__":{"format":"pt"})";
    return header + "}" + std::string(below(4), ' ');
  }

  void damage(std::string& text) {
    for (uint64_t changes = below(4); changes > 0 && !text.empty(); --changes) {
      const size_t at = below(text.size());
      const char* word = kWords[below(std::size(kWords))];
      switch (below(5)) {
        case 0:
          text[at] = static_cast<char>(below(256));
          break;
        case 1:
          text.insert(at, word);
          break;
        case 2:
          text.erase(at, 1 + below(6));
          break;
        case 3:
          text.insert(at, text.substr(below(text.size()), 1 + below(40)));
          break;
        default: {  // another number
          const size_t digit = text.find_first_of("0123456789", at);
          if (digit != text.npos) text.replace(digit, 1, std::to_string(below(20)));
        }
      }
    }
  }

  std::string file() {
    std::string data;
    std::string header = valid(data);
    damage(header);
    if (below(4) == 0) data.resize(below(data.size() + 9), 'y');
    uint64_t length = header.size();
    if (below(16) == 0) length = below(2) == 0 ? random_() : below(2 * length + 2);
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i) & 0xff));
    bytes += header + data;
    if (below(32) == 0) bytes.resize(below(bytes.size() + 1));
    return bytes;
  }

 private:
  std::mt19937_64 random_;
};

TEST(SafetensorsFuzz, is_read_or_refused) {
  constexpr uint64_t kSeed = 11;
  Writer writer(kSeed);
  for (int64_t i = 0; i < num_inputs(); ++i) {
    const std::string file = writer.file();
    ASSERT_NO_THROW(run_safetensors(reinterpret_cast<const uint8_t*>(file.data()), file.size()))
        << "seed " << kSeed << ", input " << i << ": " << ::testing::PrintToString(file);
  }
  const Read read = files_read();
  std::cout << read.accepted << " files of " << read.tensors << " tensors read, " << read.refused
            << " refused\n";
  EXPECT_GT(read.tensors, num_inputs() / 20);
  EXPECT_GT(read.refused, num_inputs() / 20);
}

}  // namespace
}  // namespace mmcore::fuzz
