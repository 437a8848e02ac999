// The KV layer under random operations: the real one and the model side by side, and beside both
// the memory that the block tables describe. After each operation all invariants are checked.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv/kv_cache.h"
#include "proof/documents.h"
#include "proof/kv_model.h"
#include "proof/operation.h"
#include "proof/violation.h"

namespace mmcore::proof {

/// Mistakes of whoever uses the KV layer, planted to see that an invariant notices.
enum class KvFault {
  kNone,
  kForgetRelease,  // a sequence ends and keeps its blocks
  kReuseRead,      // a reference is dropped that a reader still needs
  kWriteShared,    // no copy before a write
  kCopiesLast,     // blocks are released while the source of their tail's copy is still held
  kSkipRollback,   // blocks of a step that failed stay published
  kNoSalt,         // keys without the salt
  kNoMediaOffset,  // keys without the place of an image
  kNoMedia,        // keys without images
  kKeepSaves,      // what a failed step was to save stays in the host tier
  kLateSaves,      // blocks are saved after the step has written
};

struct KvFlavour {
  const char* name;
  int32_t usable_blocks;
  int32_t block_size;
  int hash_bits;
  bool prefix_caching = true;
  int32_t host_blocks = 0;
};

/// What forces trouble: few blocks, blocks of one token, hashes that collide.
std::span<const KvFlavour> kv_flavours();

class KvMachine {
 public:
  KvMachine(const KvFlavour& flavour, uint64_t seed, KvFault fault = KvFault::kNone);

  /// Does one operation and checks everything; false once something is wrong.
  bool apply(const Operation& operation);
  /// Ends every sequence: nothing may be left.
  bool finish();
  const Violation& violation() const { return violation_; }
  /// What an operation is, for a reader of a minimal sequence.
  static std::string describe(const Operation& operation);

  struct Totals {
    int64_t hits = 0, partials = 0, copies = 0, writes = 0, rollbacks = 0, loads = 0;
    uint64_t evictions = 0;
  };
  Totals totals() const;

 private:
  struct Sequence {
    int document = 0;
    BlockTable table;
    std::vector<BlockId> blocks;  // what the model says that the table is
    int64_t published = 0;
    int64_t computed = 0;
    std::vector<int> reads;  // by position: what the memory must hold
  };

  void perform(const Operation& operation);
  void start(const Operation& operation);
  void advance(const Operation& operation);
  void fork(const Operation& operation);
  void roll_back(const Operation& operation);
  void release(size_t which);
  void finish_copies();
  void reset();
  bool load(Sequence& sequence, int64_t limit, bool partly);
  void save_evicted();
  void drop_saves();

  bool is_tail_shared(const Sequence& sequence) const;
  void copy_tail(Sequence& sequence, BlockId source);
  void drop_blocks(Sequence& sequence, int64_t keep);
  void write(Sequence& sequence, int64_t target);
  void publish(Sequence& sequence);
  void fail_step(Sequence& sequence, int64_t target);

  void check();
  void check_pool();
  void check_sequence(const Sequence& sequence);
  void check_host();
  void check_salts();
  void check_partial(const Document& document, const PrefixIndex::Partial& found);
  int64_t shared_beginning(const Document& document, int content) const;
  void check_keys(int document);
  void check_own_validators();
  void fail(const char* invariant, std::string what);
  int64_t length(const Sequence& s) const { return std::ssize(documents_[s.document].tokens); }
  size_t slot(BlockId block, int64_t position) const;

  KvFlavour flavour_;
  KvFault fault_;
  Documents documents_;
  KvCache cache_;
  KvModel model_;
  std::vector<int> memory_;       // by slot: number of the prefix that was computed into it
  std::vector<int> host_memory_;  // likewise, of the host tier
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<BlockCopy> pending_;  // copies that have not run: their sources are held
  std::vector<BlockId> hits_;
  std::vector<BlockId> host_hits_;
  std::vector<int> counted_;
  std::vector<bool> keys_checked_;  // by document
  Totals totals_;
  int64_t operations_ = 0;
  Violation violation_;
};

}  // namespace mmcore::proof
