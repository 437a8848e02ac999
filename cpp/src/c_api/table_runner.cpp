#include "c_api/table_runner.h"

#include <algorithm>

#include "c_api/convert.h"

namespace mmcore::c_api {
namespace {

mmcore_media_item to_c(const MediaItem& from) {
  mmcore_media_item out{};
  out.struct_size = sizeof(out);
  out.kind = static_cast<int32_t>(from.kind);
  std::ranges::copy(from.id.bytes, out.content_id);
  out.offset = from.offset;
  out.length = from.length;
  out.embed_mask = from.embed_mask.data();
  out.embed_mask_length = std::ssize(from.embed_mask);
  if (const auto* user = dynamic_cast<const UserPayload*>(from.payload.get()))
    out.user_data = user->user_data;
  return out;
}

}  // namespace

TableRunner::~TableRunner() {
  if (destroy_ != nullptr) destroy_(context_);
}

// What accept() shows is what was submitted, but for the sampling parameters.
Status TableRunner::accept(RequestId request, const Request& content) {
  if (functions_.accept == nullptr) return {};
  std::vector<mmcore_media_item> media;
  for (const MediaItem& item : content.media) media.push_back(to_c(item));
  mmcore_submission shown = default_submission();
  shown.priority = content.priority;
  shown.prompt_token_ids = content.prompt_token_ids.data();
  shown.num_prompt_token_ids = std::ssize(content.prompt_token_ids);
  shown.media = media.data();
  shown.num_media = std::ssize(media);
  shown.cache_salt = content.cache_salt.data();
  shown.cache_salt_length = std::ssize(content.cache_salt);
  shown.lora_id = content.lora_id;
  shown.timeout_us = content.timeout_us;
  shown.queue_timeout_us = content.queue_timeout_us;
  shown.user_data = content.user_data;
  shown.num_sequences = content.num_sequences;
  const mmcore_status code = functions_.accept(context_, request, &shown);
  return code == MMCORE_OK ? Status() : host_failure(code, "accept");
}

void TableRunner::release(RequestId request) {
  if (functions_.release != nullptr) functions_.release(context_, request);
}

Status TableRunner::execute(const StepPlan& plan, StepResult& result) {
  TableStep& shown = steps_[0];
  shown.show(plan);
  const char* called = "execute";
  mmcore_status code = MMCORE_OK;
  if (functions_.execute != nullptr) {
    code = functions_.execute(context_, shown.step(), shown.room());
  } else {  // one by one all the same
    called = "begin";
    code = functions_.begin(context_, shown.step(), shown.room());
    if (code != MMCORE_OK) return not_taken(shown, plan, code, result);
    called = "end";
    code = functions_.end(context_, shown.step(), shown.room());
  }
  return code == MMCORE_OK ? shown.take(plan, called, result) : shown.failure(code, called);
}

bool TableRunner::overlaps() const { return functions_.begin != nullptr; }

// From here until end() the host may write the answer at any time, on any thread: it is not read.
Status TableRunner::begin(StepPlan& plan, StepResult& result) {
  Begun& begun = begun_[(oldest_ + num_begun_) % begun_.size()];
  begun = {&steps_[(oldest_ + num_begun_) % steps_.size()], &plan, &result};
  begun.shown->show(plan);
  const mmcore_status code = functions_.begin(context_, begun.shown->step(), begun.shown->room());
  if (code != MMCORE_OK) return not_taken(*begun.shown, plan, code, result);
  ++num_begun_;
  return {};
}

Status TableRunner::end() {
  const Begun begun = begun_[oldest_];
  oldest_ = (oldest_ + 1) % begun_.size();
  --num_begun_;
  const mmcore_status code = functions_.end(context_, begun.shown->step(), begun.shown->room());
  if (code != MMCORE_OK) return begun.shown->failure(code, "end");
  return begun.shown->take(*begun.plan, "end", *begun.result);
}

// A step that begin() refused, because of the requests that it names, or else as a whole.
Status TableRunner::not_taken(TableStep& shown, const StepPlan& plan, mmcore_status code,
                              StepResult& result) {
  shown.take_failed(plan, "begin", result);
  return result.failed.empty() ? shown.failure(code, "begin") : Status();
}

}  // namespace mmcore::c_api
