// Engine::snapshot: a copy of what every unfinished sequence is doing.
#include "engine/engine_impl.h"

namespace mmcore {
namespace {

SequenceSnapshot describe(const Sequence& sequence, SequenceStage stage) {
  SequenceSnapshot out;
  out.request = sequence.request();
  out.sequence = sequence.index;
  out.stage = stage;
  out.num_prompt_tokens = sequence.prompt_len;
  out.num_output_tokens = sequence.num_outputs() - (sequence.pending_sample >= 0);
  out.num_computed_tokens = sequence.computed;
  out.num_blocks = static_cast<int32_t>(sequence.table.size());
  out.num_preemptions = sequence.num_preemptions;
  out.num_items = sequence.num_items;
  return out;
}

}  // namespace

EngineSnapshot Engine::Impl::snapshot() const {
  EngineSnapshot out;
  out.metrics = metrics();
  out.accepting = broken_.ok() && !draining_;
  if (!broken_.ok()) return out;
  out.sequences.reserve(sequences_.size());
  for (const Sequence* sequence : scheduler_.running())
    out.sequences.push_back(describe(*sequence, SequenceStage::kRunning));
  for (const auto& [order, sequence] : scheduler_.waiting())
    out.sequences.push_back(describe(*sequence, SequenceStage::kWaiting));
  return out;
}

}  // namespace mmcore
