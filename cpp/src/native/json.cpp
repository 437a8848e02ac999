#include "native/json.h"

#include <charconv>
#include <system_error>
#include <unordered_set>

#include "native/utf8.h"

namespace mmcore::native {

namespace {

constexpr int kMaxDepth = 64;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  Result<Json> document() {
    Json value;
    if (read(value, 0)) {
      skip_spaces();
      if (at_ == text_.size()) return value;
      fail("text behind the end of the value");
    }
    return Status::invalid_argument("invalid JSON at byte " + std::to_string(at_) + ": " + error_);
  }

 private:
  bool fail(std::string what) {
    if (error_.empty()) error_ = std::move(what);
    return false;
  }

  void skip_spaces() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }

  bool next_is(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool word(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) return fail("no value begins like this");
    at_ += expected.size();
    return true;
  }

  bool read(Json& out, int depth) {
    if (depth > kMaxDepth) return fail("nested deeper than " + std::to_string(kMaxDepth));
    skip_spaces();
    if (at_ == text_.size()) return fail("the text ends where a value is expected");
    switch (text_[at_]) {
      case '{':
        return read_object(out, depth);
      case '[':
        return read_array(out, depth);
      case '"':
        return read_string(out.value_.emplace<std::string>());
      case 't':
        out.value_ = true;
        return word("true");
      case 'f':
        out.value_ = false;
        return word("false");
      case 'n':
        return word("null");
      default:
        return read_number(out);
    }
  }

  bool read_object(Json& out, int depth) {
    ++at_;
    Json::Object& members = out.value_.emplace<Json::Object>();
    skip_spaces();
    if (next_is('}')) return true;
    do {
      skip_spaces();
      if (at_ == text_.size() || text_[at_] != '"') return fail("expected a key in quotes");
      Json::Member& member = members.emplace_back();
      if (!read_string(member.first)) return false;
      skip_spaces();
      if (!next_is(':')) return fail("expected ':' behind the key");
      if (!read(member.second, depth + 1)) return false;
      skip_spaces();
    } while (next_is(','));
    if (!next_is('}')) return fail("expected ',' or '}'");
    std::unordered_set<std::string_view> keys;
    for (const Json::Member& member : members)
      if (!keys.insert(member.first).second) return fail("the key '" + member.first + "' twice");
    return true;
  }

  bool read_array(Json& out, int depth) {
    ++at_;
    Json::Array& items = out.value_.emplace<Json::Array>();
    skip_spaces();
    if (next_is(']')) return true;
    do {
      if (!read(items.emplace_back(), depth + 1)) return false;
      skip_spaces();
    } while (next_is(','));
    return next_is(']') || fail("expected ',' or ']'");
  }

  bool read_number(Json& out) {
    const size_t begin = at_;
    next_is('-');
    const size_t digits = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    if (at_ == digits) return fail("no value begins like this");
    if (text_[digits] == '0' && at_ - digits > 1) return fail("a number with a leading zero");
    bool integer = true;
    if (next_is('.')) {
      integer = false;
      if (!read_digits()) return fail("a number without digits behind the point");
    }
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      integer = false;
      ++at_;
      if (!next_is('+')) next_is('-');
      if (!read_digits()) return fail("a number without an exponent");
    }
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    if (integer) {
      int64_t value = 0;
      if (std::from_chars(first, last, value).ec == std::errc{}) {
        out.value_ = value;
        return true;
      }
    }
    double value = 0;
    if (std::from_chars(first, last, value).ec != std::errc{}) return fail("a number out of range");
    out.value_ = value;
    return true;
  }

  bool read_digits() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    return at_ > begin;
  }

  bool read_string(std::string& out) {
    const size_t begin = ++at_;
    while (at_ < text_.size() && text_[at_] != '"') {
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) return fail("a control character in a string");
      if (c == '\\') {
        if (!read_escape(out)) return false;
      } else {
        out += c;
        ++at_;
      }
    }
    if (at_ == text_.size()) return fail("a string without its end");
    if (!is_utf8(text_.substr(begin, at_ - begin))) return fail("a string that is not UTF-8");
    ++at_;
    return true;
  }

  bool read_escape(std::string& out) {
    ++at_;
    if (at_ == text_.size()) return fail("a string without its end");
    const char c = text_[at_++];
    constexpr std::string_view kFrom = "\"\\/bfnrt";
    constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
    if (const size_t i = kFrom.find(c); i != kFrom.npos) {
      out += kTo[i];
      return true;
    }
    if (c != 'u') return fail("an unknown escape");
    uint32_t code = 0;
    if (!read_hex(code)) return false;
    if (code >= 0xD800 && code < 0xDC00) {  // the first half of a character beyond 16 bits
      uint32_t low = 0;
      if (text_.substr(at_, 2) != "\\u") return fail("half of a surrogate pair");
      at_ += 2;
      if (!read_hex(low)) return false;
      if (low < 0xDC00 || low > 0xDFFF) return fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      return fail("half of a surrogate pair");
    }
    append_utf8(code, out);
    return true;
  }

  bool read_hex(uint32_t& code) {
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || error != std::errc{} || end != digits.data() + 4)
      return fail("an escape \\u without four digits");
    at_ += 4;
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string error_;
};

Result<Json> Json::parse(std::string_view text) { return JsonReader(text).document(); }

const Json& Json::operator[](std::string_view key) const {
  static const Json kNull;
  if (is_object())
    for (const Member& member : as_object())
      if (member.first == key) return member.second;
  return kNull;
}

const char* Json::kind() const {
  constexpr const char* kKinds[] = {"null",     "a boolean", "an integer", "a number",
                                    "a string", "an array",  "an object"};
  return kKinds[value_.index()];
}

}  // namespace mmcore::native
