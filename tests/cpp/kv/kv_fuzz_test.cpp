// Random operations on block pool, prefix index and tables against a naive model that only knows
// contents: what a cached block holds is the whole sequence up to its end.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>

#include "kv/kv_cache.h"

namespace mmcore {
namespace {

// More operations than the default: MMCORE_TEST_OPS=5000000.
int64_t num_ops() {
  const char* text = std::getenv("MMCORE_TEST_OPS");
  return text == nullptr ? 150'000 : std::strtoll(text, nullptr, 10);
}

struct User {
  std::vector<TokenId> tokens;
  std::string salt;
  std::vector<MediaItem> media;
  KeyChain chain;
  BlockTable table;
  int64_t computed = 0;
};

class Fuzz {
 public:
  Fuzz(uint64_t seed, int32_t blocks, int32_t size, int bits)
      : random_(seed),
        size_(size),
        cache_({.num_blocks = blocks,
                .block_size = size,
                .prefix_caching = true,
                .hash_key = HashKey::from_seed(seed),
                .hash_bits = bits}) {}

  void run(int64_t ops) {
    for (int64_t op = 0; op < ops && !::testing::Test::HasFailure(); ++op) {
      switch (random_() % 16) {
        case 0:
        case 1:
        case 2:
          start();
          break;
        case 3:
          end();
          break;
        case 4:
          fork();
          break;
        case 5:
          shrink();
          break;
        case 6:
          if (random_() % 50 == 0) reset();
          break;
        default:
          advance();
      }
      if (op % 16 == 0) check();
    }
    while (!users_.empty()) end();
    check();
    EXPECT_EQ(cache_.pool().num_used(), 0);
  }
  int64_t hits = 0;
  int64_t copies = 0;
  uint64_t evictions() const { return cache_.evictions(); }

 private:
  uint64_t below(uint64_t n) { return random_() % n; }
  User* any() { return users_.empty() ? nullptr : users_[below(users_.size())].get(); }

  // Identity of the first (i + 1) blocks' content, in plain text.
  std::string content(const User& user, int64_t i) const {
    std::string text = user.salt + "|";
    for (int64_t p = 0; p < (i + 1) * size_; ++p) {
      text += std::to_string(user.tokens[static_cast<size_t>(p)]);
      for (const MediaItem& item : user.media)
        if (p >= item.offset && p < item.offset + item.length)
          text += "m" + std::to_string(item.id.bytes[0]) + "r" + std::to_string(p - item.offset) +
                  "/" + std::to_string(item.length);
      text += ",";
    }
    return text;
  }

  void start() {
    if (users_.size() >= 6) return;
    auto user = std::make_unique<User>();
    user->salt = below(4) == 0 ? "s" : "";
    const auto length = static_cast<size_t>(below(12) * static_cast<uint64_t>(size_) + 2);
    for (size_t i = 0; i < length + 64; ++i)  // the tail stands for generated tokens
      user->tokens.push_back(i < length ? static_cast<TokenId>(below(8) == 0) : 2);
    if (below(2) == 0) {
      MediaItem item{.offset = static_cast<int32_t>(below(length))};
      item.length = static_cast<int32_t>(
          1 + below(std::min<uint64_t>(5, length - static_cast<uint64_t>(item.offset))));
      item.id.bytes[0] = static_cast<uint8_t>(1 + below(2));
      user->media = {item};
    }
    user->chain = KeyChain(static_cast<int32_t>(size_), SpanMap(user->media), user->salt, 0);
    std::vector<BlockId> found;
    cache_.match(user->chain, std::span(user->tokens).first(length), 1000, found);
    // A hit is exactly what the model says the block holds; a miss is a content it does not know.
    for (size_t i = 0; i < found.size(); ++i)
      ASSERT_EQ(model_.at(found[i]), content(*user, static_cast<int64_t>(i)));
    const auto next = static_cast<int64_t>(found.size());
    if ((next + 1) * size_ <= static_cast<int64_t>(length)) {
      const std::string missed = content(*user, next);
      for (const auto& [block, text] : model_)
        ASSERT_TRUE(text != missed || !cache_.index().contains(block)) << "a hit was missed";
    }
    hits += next;
    adopt(*user, found);
    users_.push_back(std::move(user));
  }

  // Uses whole blocks, or all but one token of the last one.
  void adopt(User& user, std::vector<BlockId>& found) {
    const bool partly = !found.empty() && size_ > 1 && below(2) == 0 &&
                        cache_.pool().num_free() > static_cast<int64_t>(found.size()) + 1;
    const size_t whole = found.size() - (partly ? 1 : 0);
    cache_.adopt(user.table, std::span(found).first(whole));
    user.computed = static_cast<int64_t>(whole) * size_;
    if (!partly) return;
    cache_.finish_copy(cache_.append_copy(user.table, found.back()));
    user.computed += size_ - 1;
    ++copies;
  }

  void advance() {
    User* user = any();
    if (user == nullptr) return;
    const auto target = std::min<int64_t>(
        user->computed + 1 + static_cast<int64_t>(below(3 * size_)), std::ssize(user->tokens));
    const int64_t need = cache_.blocks_for(target) - user->table.size() + 1;
    if (cache_.pool().num_free() < need) return end();
    cache_.grow(user->table, cache_.blocks_for(target));
    for (int64_t i = user->computed / size_; i < user->table.size(); ++i) {
      ASSERT_EQ(cache_.pool().refs(user->table[i]), 1) << "kv.write";
      ASSERT_FALSE(cache_.index().contains(user->table[i])) << "kv.write";
      model_.erase(user->table[i]);
    }
    if (below(4) == 0 && ahead(*user, target)) return;
    user->computed = target;
    cache_.commit_step();
    cache_.publish(user->table, user->chain, user->tokens, target);
    for (int64_t i = 0; i < user->table.published(); ++i) {
      const auto [known, fresh] = model_.emplace(user->table[i], content(*user, i));
      ASSERT_EQ(known->second, content(*user, i)) << (fresh ? "" : "a block changed its content");
    }
  }

  // Registers what a step would fill; true if the step then failed.
  bool ahead(User& user, int64_t target) {
    const uint64_t last = cache_.index().insertions();
    const int32_t published = user.table.published();
    cache_.publish_ahead(user.table, user.chain, user.tokens, target);
    for (int64_t i = 0; i < user.table.size(); ++i)
      EXPECT_EQ(cache_.newer_than(user.table[i], last),
                i >= published && i < user.table.published());
    std::vector<BlockId> found;
    cache_.match(user.chain, user.tokens, user.table.published(), found);
    EXPECT_TRUE(std::ranges::equal(found, user.table.blocks().first(found.size())));
    EXPECT_EQ(std::ssize(found), user.table.published());
    if (below(2) == 0) return false;
    cache_.unpublish(user.table, published);
    cache_.truncate(user.table, cache_.blocks_for(user.computed));
    cache_.rollback_step(/*ran=*/true);
    return true;
  }

  void fork() {
    User* user = any();
    if (user == nullptr || users_.size() >= 6) return;
    auto child = std::make_unique<User>(*user);
    child->table = BlockTable();
    // The full blocks are shared, the tail is copied if there is room for it.
    const int64_t full = user->computed / size_;
    cache_.share(user->table, child->table, full);
    child->computed = full * size_;
    if (user->computed > child->computed && cache_.pool().num_free() > 0) {
      cache_.finish_copy(cache_.append_copy(child->table, user->table[full]));
      child->computed = user->computed;
      ++copies;
    }
    // From the first token that is not computed on, the child goes its own way.
    for (size_t p = static_cast<size_t>(user->computed); p < child->tokens.size(); ++p)
      child->tokens[p] = static_cast<TokenId>(3 + below(2));
    child->chain = KeyChain(static_cast<int32_t>(size_), SpanMap(child->media), child->salt, 0);
    users_.push_back(std::move(child));
  }

  void shrink() {
    User* user = any();
    if (user == nullptr) return;
    const int64_t blocks =
        static_cast<int64_t>(below(static_cast<uint64_t>(user->table.size()) + 1));
    cache_.truncate(user->table, blocks);
    user->computed = std::min(user->computed, blocks * size_);
  }

  void end() {
    if (users_.empty()) return;
    const size_t at = below(users_.size());
    cache_.release(users_[at]->table);
    users_.erase(users_.begin() + static_cast<ptrdiff_t>(at));
  }

  void reset() {
    while (!users_.empty()) end();
    cache_.clear();
    model_.clear();
  }

  void check() {
    std::vector<KvCache::TableView> tables;
    for (const auto& user : users_)
      tables.push_back({1, &user->table, &user->chain, user->tokens, user->computed});
    for (const std::string& violation : cache_.violations(tables)) ADD_FAILURE() << violation;
  }

  std::mt19937_64 random_;
  int64_t size_;
  KvCache cache_;
  std::vector<std::unique_ptr<User>> users_;
  std::map<BlockId, std::string> model_;  // what a published block holds
};

TEST(KvFuzz, agrees_with_a_naive_model) {
  struct Case {
    int32_t blocks, size;
    int bits;
  };
  const std::vector<Case> cases = {{2, 1, 8},   {4, 2, 1},   {8, 1, 8},   {8, 4, 64},  {40, 1, 8},
                                   {40, 2, 64}, {64, 16, 8}, {200, 4, 8}, {500, 1, 64}};
  int64_t hits = 0;
  int64_t copies = 0;
  uint64_t evictions = 0;
  uint64_t seed = 4200;
  for (const Case& c : cases) {
    SCOPED_TRACE("seed " + std::to_string(++seed) + ", blocks " + std::to_string(c.blocks) + " x " +
                 std::to_string(c.size) + ", hash bits " + std::to_string(c.bits));
    Fuzz fuzz(seed, c.blocks, c.size, c.bits);
    fuzz.run(num_ops() / static_cast<int64_t>(cases.size()));
    hits += fuzz.hits;
    copies += fuzz.copies;
    evictions += fuzz.evictions();
    if (HasFailure()) return;
  }
  EXPECT_GT(hits, 1000);
  EXPECT_GT(copies, 1000);
  EXPECT_GT(evictions, 1000u);
}

}  // namespace
}  // namespace mmcore
