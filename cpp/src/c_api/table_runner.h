// A host's own runner, given as a table of C functions.
#pragma once

#include <array>
#include <vector>

#include "mmcore/c_api.h"
#include "mmcore/model_runner.h"

namespace mmcore::c_api {

class TableRunner : public ModelRunner {
 public:
  /// `functions` was checked.
  TableRunner(const mmcore_runner_functions& functions, void* context)
      : functions_(functions), context_(context) {}
  ~TableRunner() override;
  /// From here on `context` is this runner's to destroy; its own `destroy` may be null.
  void own_context(void (*destroy)(void* context)) { destroy_ = destroy; }
  TableRunner(const TableRunner&) = delete;
  TableRunner& operator=(const TableRunner&) = delete;

  Status accept(RequestId request, const Request& content) override;
  Status execute(const StepPlan& plan, StepResult& result) override;
  void release(RequestId request) override;
  int32_t num_host_blocks() const override { return functions_.num_host_blocks; }

 private:
  mmcore_step view(const StepPlan& plan);
  mmcore_step_result room_for(const StepPlan& plan);
  Status take(const StepPlan& plan, StepResult& result);
  Status failure(mmcore_status code, const char* what) const;

  const mmcore_runner_functions functions_;
  void* const context_;
  void (*destroy_)(void* context) = nullptr;

  // What a step shows and what it gets back; kept, so that steps do not allocate.
  std::vector<mmcore_sequence> sequences_;
  std::vector<mmcore_sample_row> sampling_;
  std::vector<mmcore_logit_bias> biases_;
  std::vector<mmcore_host_copy> host_saves_;
  std::vector<mmcore_host_copy> host_loads_;
  std::vector<mmcore_block_copy> block_copies_;
  std::vector<mmcore_encode_item> encode_;
  std::vector<mmcore_embedding_copy> embeddings_;
  std::vector<int32_t> tokens_;
  std::vector<mmcore_status> sequence_status_;
  struct Logprobs {
    std::vector<int64_t> starts;
    std::vector<mmcore_logprob> values;
    std::vector<int32_t> counts;
    void clear(size_t rows);
    void add_row(int32_t num_logprobs);
    /// False if the runner announces more than there is room for.
    bool read(size_t row, std::vector<TokenLogprob>& out) const;
  };
  Logprobs logprobs_;
  Logprobs prompt_logprobs_;
  std::array<char, 1024> message_{};
};

}  // namespace mmcore::c_api
