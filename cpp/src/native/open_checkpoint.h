// What a runner handle of native_c.h holds: the runner, and the tokenizer beside it.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "mmcore/native.h"

namespace mmcore::native {

class OpenCheckpoint final : public ModelRunner {
 public:
  OpenCheckpoint(std::unique_ptr<NativeRunner> runner, Result<std::unique_ptr<Tokenizer>> tokenizer)
      : runner_(std::move(runner)),
        tokenizer_(std::move(tokenizer)),
        eos_token_ids_(runner_->model().eos_token_ids) {}

  const NativeRunner& runner() const { return *runner_; }
  /// Null where there is none; tokenizer_status() says why.
  const Tokenizer* tokenizer() const {
    return tokenizer_.ok() ? tokenizer_.value().get() : nullptr;
  }
  Status tokenizer_status() const { return tokenizer_.status(); }
  const std::vector<TokenId>& eos_token_ids() const { return eos_token_ids_; }

  Status accept(RequestId request, const Request& content) override {
    return runner_->accept(request, content);
  }
  Status execute(const StepPlan& plan, StepResult& result) override {
    return runner_->execute(plan, result);
  }
  void release(RequestId request) override { runner_->release(request); }

 private:
  std::unique_ptr<NativeRunner> runner_;
  Result<std::unique_ptr<Tokenizer>> tokenizer_;
  std::vector<TokenId> eos_token_ids_;
};

}  // namespace mmcore::native
