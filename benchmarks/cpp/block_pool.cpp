// Times the block pool and the prefix index: operations per second on one core.
#include <cstdio>
#include <numeric>
#include <vector>

#include "kv/kv_cache.h"
#include "timing.h"

namespace {

using namespace mmcore;  // NOLINT: a program of one file

constexpr int32_t kBlockSize = 16;
constexpr int kRounds = 15;

KvCacheOptions options(int32_t blocks) {
  return {.num_blocks = blocks, .block_size = kBlockSize, .hash_key = HashKey::from_seed(1)};
}

void report(const char* what, int32_t blocks, const std::vector<double>& ns) {
  std::printf("%-44s %9d | %8.1f ns | %8.1f M/s\n", what, blocks, bench::median(ns),
              1000 / bench::median(ns));
}

// Takes all blocks and gives them back.
void allocate_and_free(int32_t blocks) {
  KvCache cache(options(blocks));
  std::vector<double> ns;
  for (int round = 0; round < kRounds; ++round) {
    BlockTable table;
    const double begin = bench::now_us();
    cache.grow(table, blocks - 1);
    cache.release(table);
    ns.push_back((bench::now_us() - begin) * 1000 / (blocks - 1));
  }
  report("allocate + free a block", blocks, ns);
}

// Publishes sequences of 64 blocks, looks them up, adopts and releases them, evicts them.
void publish_and_match(int32_t blocks) {
  constexpr int32_t kBlocks = 64;
  KvCache cache(options(blocks));
  const int32_t sequences = (blocks - 1) / kBlocks;
  std::vector<TokenId> tokens(static_cast<size_t>(kBlocks * kBlockSize));
  std::vector<BlockId> hits;
  std::vector<double> publish, match, first_match, adopt;
  for (int round = 0; round < kRounds; ++round) {
    double times[4] = {};
    for (int32_t s = 0; s < sequences; ++s) {
      std::iota(tokens.begin(), tokens.end(), (round * sequences + s) * 7919);
      KeyChain chain(kBlockSize, SpanMap(), "", 0);
      BlockTable table;
      const double t0 = bench::now_us();
      cache.grow(table, kBlocks);  // evicts what the last round published
      cache.publish(table, chain, tokens, kBlocks * kBlockSize);
      cache.release(table);
      const double t1 = bench::now_us();
      KeyChain fresh(kBlockSize, SpanMap(), "", 0);
      cache.match(fresh, tokens, kBlocks, hits);
      const double t2 = bench::now_us();
      cache.match(fresh, tokens, kBlocks, hits);
      const double t3 = bench::now_us();
      if (hits.size() != kBlocks) std::printf("lost %zu blocks\n", kBlocks - hits.size());
      BlockTable again;
      cache.adopt(again, hits);
      cache.release(again);
      const double t4 = bench::now_us();
      times[0] += t1 - t0;
      times[1] += t2 - t1;
      times[2] += t3 - t2;
      times[3] += t4 - t3;
    }
    const double each = 1000.0 / (double{1} * sequences * kBlocks);
    publish.push_back(times[0] * each);
    first_match.push_back(times[1] * each);
    match.push_back(times[2] * each);
    adopt.push_back(times[3] * each);
  }
  report("evict + allocate + publish + free a block", blocks, publish);
  report("look a block up, hash included", blocks, first_match);
  report("look a block up again", blocks, match);
  report("adopt + free a cached block", blocks, adopt);
}

}  // namespace

int main() {
  std::printf("KV blocks of %d tokens, median of %d rounds, per block; %s\n", kBlockSize, kRounds,
              bench::cpu_name().c_str());
  for (const int32_t blocks : {1025, 16385, 262145}) {
    allocate_and_free(blocks);
    publish_and_match(blocks);
  }
  return 0;
}
