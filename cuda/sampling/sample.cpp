// sample and logprobs on a GPU: what rows ask for goes up in one copy from pinned memory, the
// kernels of sampler.h run, and one copy brings the tokens back.
#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "host/device.h"
#include "ops/cuda_backend.h"
#include "ops/logit_edits.h"
#include "ops/row_logprobs.h"
#include "ops/sample_row.h"
#include "ops/vocab_row.h"
#include "sampling/sampler.h"
#include "sampling/staging.h"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

Rows rows_of(const TensorView& logits) {
  const auto bytes = static_cast<int64_t>(size_of(logits.dtype));
  return {.logits = logits.data,
          .dtype = logits.dtype,
          .count = logits.size(0),
          .vocab = logits.size(1),
          .stride = logits.stride(0),
          .edit_slot = nullptr,
          .edited = nullptr,
          .edited_stride = (logits.size(1) + 3) / 4 * 4,
          .aligned = reinterpret_cast<uintptr_t>(logits.data) % 16 == 0 &&
                     (logits.stride(0) * bytes) % 16 == 0};
}

template <class T>
T* at(std::byte* base, size_t offset) {
  return reinterpret_cast<T*>(base + offset);
}

/// How long the lists of all edited rows are together.
struct EditSizes {
  size_t rows = 0;
  size_t tokens = 0;
  size_t biases = 0;

  void add(const SampleRow& r) {
    ++rows;
    tokens += r.allowed_tokens.size() + r.banned_tokens.size();
    // The penalties alone look at these.
    if (r.repetition_penalty != 1.0f) tokens += r.prompt_tokens.size();
    tokens += r.output_tokens.size();
    biases += r.logit_bias.size();
  }
};

/// Copies rows' lists behind each other.
class EditWriter {
 public:
  EditWriter(RowEdits* edits, int32_t* tokens, int32_t* bias_tokens, float* bias)
      : edits_(edits), tokens_(tokens), bias_tokens_(bias_tokens), bias_(bias) {}

  void add(int32_t row, const SampleRow& r) {
    RowEdits e{};
    e.row = row;
    e.slot = num_edits_;
    e.repetition_penalty = r.repetition_penalty;
    e.frequency_penalty = r.frequency_penalty;
    e.presence_penalty = r.presence_penalty;
    append(r.allowed_tokens, e.allowed_begin, e.allowed_end);
    append(r.banned_tokens, e.banned_begin, e.banned_end);
    if (r.repetition_penalty != 1.0f) append(r.prompt_tokens, e.prompt_begin, e.prompt_end);
    append(r.output_tokens, e.output_begin, e.output_end);
    e.bias_begin = num_biases_;
    for (const auto& [token, bias] : r.logit_bias) {
      bias_tokens_[num_biases_] = token;
      bias_[num_biases_++] = bias;
    }
    e.bias_end = num_biases_;
    edits_[num_edits_++] = e;
  }

 private:
  void append(std::span<const TokenId> list, int32_t& begin, int32_t& end) {
    begin = num_tokens_;
    std::copy(list.begin(), list.end(), tokens_ + num_tokens_);
    num_tokens_ += static_cast<int32_t>(list.size());
    end = num_tokens_;
  }

  RowEdits* edits_;
  int32_t* tokens_;
  int32_t* bias_tokens_;
  float* bias_;
  int32_t num_edits_ = 0;
  int32_t num_tokens_ = 0;
  int32_t num_biases_ = 0;
};

/// Requests for logprobs, and where their entries begin.
struct Requests {
  std::vector<LogprobRequest> all;
  size_t entries = 0;

  void add(int64_t row, TokenId target, int32_t num, int64_t vocab) {
    const auto best = static_cast<int32_t>(std::min<int64_t>(num, vocab));
    // A longer list than the kernel makes is made on the host; only the row's token is wanted here.
    const int32_t listed = best > kMostLogprobs ? 0 : best;
    all.push_back({.row = static_cast<int32_t>(row),
                   .target = target,
                   .num = listed,
                   .begin = static_cast<int32_t>(entries)});
    entries += static_cast<size_t>(listed) + 1;
  }
};

void read_entries(const LogprobRequest& request, const LogprobEntry* entries,
                  std::vector<TokenLogprob>& out) {
  for (int32_t i = 0; i <= request.num && entries[request.begin + i].token >= 0; ++i) {
    const LogprobEntry& e = entries[request.begin + i];
    out.push_back({.token = e.token, .logprob = e.logprob, .rank = e.rank});
  }
}

/// A list longer than the kernel makes: with the CPU's code on a copy of the row.
Status list_on_host(const TensorView& logits, int64_t row, TokenId token, int64_t num,
                    std::vector<TokenLogprob>& out) {
  const auto element = static_cast<int64_t>(size_of(logits.dtype));
  std::vector<char> copy(static_cast<size_t>(logits.size(1) * element));
  MMCORE_RETURN_IF_ERROR(cuda_status(
      "logprobs", cudaMemcpy(copy.data(), logits.ptr<char>() + row * logits.stride(0) * element,
                             copy.size(), cudaMemcpyDeviceToHost)));
  return dispatch_float(logits.dtype, "logprobs", [&]<class T>() {
    ops::VocabRow values;
    if (values.load(reinterpret_cast<const T*>(copy.data()), logits.size(1)))
      ops::row_logprobs(values, token, num, out);
  });
}

/// Where everything lies in a call's memory: [copied up | copied down | device alone].
struct Plan {
  Layout layout;
  size_t temperature, top_p, min_p, top_k, seed, counter, edit_slot, raw_nans;
  size_t edits, tokens, bias_tokens, bias, requests;
  size_t up_end;
  size_t down, picked, outcomes, logprob_outcomes, entries;
  size_t down_end;
  size_t segments, edited;

  Plan(const Rows& rows, const EditSizes& sizes, const Requests& wanted) {
    const auto n = static_cast<size_t>(rows.count);
    temperature = layout.add<float>(n);
    top_p = layout.add<float>(n);
    min_p = layout.add<float>(n);
    top_k = layout.add<int32_t>(n);
    seed = layout.add<int64_t>(n);
    counter = layout.add<int64_t>(n);
    edit_slot = layout.add<int32_t>(n);
    raw_nans = layout.add<int32_t>(n);
    edits = layout.add<RowEdits>(sizes.rows);
    tokens = layout.add<int32_t>(sizes.tokens);
    bias_tokens = layout.add<int32_t>(sizes.biases);
    bias = layout.add<float>(sizes.biases);
    requests = layout.add<LogprobRequest>(wanted.all.size());
    up_end = layout.size();
    down = layout.size();
    picked = layout.add<int32_t>(n);
    outcomes = layout.add<int32_t>(n);
    logprob_outcomes = layout.add<int32_t>(wanted.all.size());
    entries = layout.add<LogprobEntry>(wanted.entries);
    down_end = layout.size();
    segments = layout.add<std::byte>(n * static_cast<size_t>(rows.segments()) *
                                     static_cast<size_t>(ops::kSegmentBytes));
    edited = layout.add<float>(sizes.rows * static_cast<size_t>(rows.edited_stride));
  }
};

void write_columns(const Plan& plan, std::byte* host, std::span<const SampleRow> rows,
                   const std::vector<Status>& status) {
  SampleRow harmless;  // in place of a row that was refused
  harmless.temperature = 0.0f;
  for (size_t i = 0; i < rows.size(); ++i) {
    const SampleRow& r = status[i].ok() ? rows[i] : harmless;
    at<float>(host, plan.temperature)[i] = r.temperature;
    at<float>(host, plan.top_p)[i] = r.top_p;
    at<float>(host, plan.min_p)[i] = r.min_p;
    at<int32_t>(host, plan.top_k)[i] = r.top_k;
    at<int64_t>(host, plan.seed)[i] = static_cast<int64_t>(r.seed);
    at<int64_t>(host, plan.counter)[i] = static_cast<int64_t>(r.counter);
  }
}

SampleColumns columns_on(const Plan& plan, std::byte* device) {
  return {.temperature = at<float>(device, plan.temperature),
          .top_p = at<float>(device, plan.top_p),
          .min_p = at<float>(device, plan.min_p),
          .top_k = at<int32_t>(device, plan.top_k),
          .seed = at<int64_t>(device, plan.seed),
          .counter = at<int64_t>(device, plan.counter)};
}

Status status_of(int32_t outcome, int64_t vocab) {
  switch (outcome) {
    case kPicked:
      return {};
    case kNaNInLogits:
      return ops::nan_in_logits();
    case kNaNFromEdits:
      return ops::nan_from_edits();
    case kNothingLeft:
      return ops::nothing_left(vocab);
    default:
      return Status::internal("sample: the kernel refused parameters that were checked");
  }
}

/// Copies [begin, end) of the pinned memory up, or down.
Status copy_part(const char* op, Staging& memory, size_t begin, size_t end, cudaMemcpyKind kind,
                 cudaStream_t stream) {
  if (begin == end) return {};
  const bool up = kind == cudaMemcpyHostToDevice;
  std::byte* to = up ? memory.device() : memory.host();
  const std::byte* from = up ? memory.host() : memory.device();
  return cuda_status(op, cudaMemcpyAsync(to + begin, from + begin, end - begin, kind, stream));
}

}  // namespace
}  // namespace mmcore::cuda

namespace mmcore::ops::cuda {

namespace mc = mmcore::cuda;

Status sample(const TensorView& logits, std::span<const SampleRow> rows,
              std::vector<SampledToken>& out, std::vector<Status>* row_status, Stream stream) {
  out.resize(rows.size());
  for (SampledToken& t : out) {
    t.token = -1;
    t.logprobs.clear();
  }
  std::vector<Status> own;
  std::vector<Status>& status = row_status != nullptr ? *row_status : own;
  status.assign(rows.size(), Status());
  if (rows.empty()) return {};
  const mc::DeviceGuard guard(logits.device);
  const cudaStream_t queue = mc::stream_of(stream);
  mc::Rows problem = mc::rows_of(logits);

  mc::EditSizes sizes;
  mc::Requests requests;
  for (size_t i = 0; i < rows.size(); ++i) {
    status[i] = check_sample_row(rows[i]);
    if (!status[i].ok()) continue;
    if (edits_logits(rows[i])) sizes.add(rows[i]);
    if (rows[i].num_logprobs >= 0)
      requests.add(static_cast<int64_t>(i), -1, rows[i].num_logprobs, problem.vocab);
  }
  if (std::max({sizes.tokens, sizes.biases, requests.entries}) >
      static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return Status::invalid_argument("sample: the rows' lists hold more than 2^31 - 1 tokens");
  }
  const mc::Plan plan(problem, sizes, requests);
  mc::Staging& memory = mc::Staging::of(logits.device);
  MMCORE_RETURN_IF_ERROR(
      memory.reserve(plan.down_end, plan.layout.size(),
                     sizes.rows * static_cast<size_t>(problem.edited_stride) * sizeof(int32_t)));
  std::byte* const host = memory.host();
  std::byte* const device = memory.device();

  mc::write_columns(plan, host, rows, status);
  auto* edit_slot = mc::at<int32_t>(host, plan.edit_slot);
  std::fill_n(mc::at<int32_t>(host, plan.raw_nans), rows.size(), 0);
  mc::EditWriter writer(mc::at<mc::RowEdits>(host, plan.edits), mc::at<int32_t>(host, plan.tokens),
                        mc::at<int32_t>(host, plan.bias_tokens), mc::at<float>(host, plan.bias));
  int32_t slots = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool edits = status[i].ok() && edits_logits(rows[i]);
    edit_slot[i] = edits ? slots++ : -1;
    if (edits) writer.add(static_cast<int32_t>(i), rows[i]);
  }
  std::copy(requests.all.begin(), requests.all.end(),
            mc::at<mc::LogprobRequest>(host, plan.requests));

  if (slots > 0) {
    problem.edit_slot = mc::at<int32_t>(device, plan.edit_slot);
    problem.edited = mc::at<float>(device, plan.edited);
  }
  const mc::SampleColumns columns = mc::columns_on(plan, device);
  auto* raw_nans = mc::at<int32_t>(device, plan.raw_nans);
  auto* picked = mc::at<int32_t>(device, plan.picked);
  void* segments = mc::at<std::byte>(device, plan.segments);
  const auto queue_all = [&]() -> Status {
    MMCORE_RETURN_IF_ERROR(
        mc::copy_part("sample", memory, 0, plan.up_end, cudaMemcpyHostToDevice, queue));
    MMCORE_RETURN_IF_ERROR(mc::edit_rows(problem,
                                         {.edits = mc::at<mc::RowEdits>(device, plan.edits),
                                          .count = slots,
                                          .tokens = mc::at<int32_t>(device, plan.tokens),
                                          .bias_tokens = mc::at<int32_t>(device, plan.bias_tokens),
                                          .bias = mc::at<float>(device, plan.bias),
                                          .marks = memory.marks(),
                                          .raw_nans = raw_nans},
                                         queue));
    MMCORE_RETURN_IF_ERROR(mc::scan_segments(problem, columns, segments, logits.device, queue));
    MMCORE_RETURN_IF_ERROR(mc::pick_tokens(problem, columns, segments, raw_nans, picked,
                                           mc::at<int32_t>(device, plan.outcomes), logits.device,
                                           queue));
    MMCORE_RETURN_IF_ERROR(mc::row_logprobs(problem,
                                            mc::at<mc::LogprobRequest>(device, plan.requests),
                                            static_cast<int32_t>(requests.all.size()), picked,
                                            mc::at<mc::LogprobEntry>(device, plan.entries),
                                            mc::at<int32_t>(device, plan.logprob_outcomes), queue));
    return mc::copy_part("sample", memory, plan.down, plan.down_end, cudaMemcpyDeviceToHost, queue);
  };
  const Status queued = queue_all();
  // Also after a failure: the memory must not be used again while a kernel may still do so.
  const Status done = mc::cuda_status("sample", cudaStreamSynchronize(queue));
  MMCORE_RETURN_IF_ERROR(queued);
  MMCORE_RETURN_IF_ERROR(done);

  for (size_t i = 0; i < rows.size(); ++i) {
    if (!status[i].ok()) continue;
    status[i] = mc::status_of(mc::at<int32_t>(host, plan.outcomes)[i], problem.vocab);
    if (status[i].ok()) out[i].token = mc::at<int32_t>(host, plan.picked)[i];
  }
  const auto* entries = mc::at<mc::LogprobEntry>(host, plan.entries);
  for (const mc::LogprobRequest& request : requests.all) {
    const auto i = static_cast<size_t>(request.row);
    if (!status[i].ok()) continue;
    const int64_t num = std::min<int64_t>(rows[i].num_logprobs, problem.vocab);
    if (num > request.num) {
      MMCORE_RETURN_IF_ERROR(
          mc::list_on_host(logits, request.row, out[i].token, num, out[i].logprobs));
    } else {
      mc::read_entries(request, entries, out[i].logprobs);
    }
  }
  return row_status != nullptr ? Status() : first_failure(own);
}

Status logprobs(const TensorView& logits, std::span<const TokenId> targets,
                std::span<const int32_t> num, std::vector<std::vector<TokenLogprob>>& out,
                Stream stream) {
  out.resize(targets.size());
  for (auto& list : out) list.clear();
  const mc::Rows problem = mc::rows_of(logits);
  std::vector<Status> status(targets.size());
  mc::Requests requests;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (num[i] < 0) continue;
    status[i] = check_target(static_cast<int64_t>(i), targets[i], problem.vocab);
    if (status[i].ok()) requests.add(static_cast<int64_t>(i), targets[i], num[i], problem.vocab);
  }
  if (!requests.all.empty()) {
    const mc::DeviceGuard guard(logits.device);
    const cudaStream_t queue = mc::stream_of(stream);
    mc::Rows none = problem;
    none.count = 0;
    const mc::Plan plan(none, {}, requests);
    mc::Staging& memory = mc::Staging::of(logits.device);
    MMCORE_RETURN_IF_ERROR(memory.reserve(plan.down_end, plan.layout.size(), 0));
    std::copy(requests.all.begin(), requests.all.end(),
              mc::at<mc::LogprobRequest>(memory.host(), plan.requests));
    const auto queue_all = [&]() -> Status {
      std::byte* const device = memory.device();
      MMCORE_RETURN_IF_ERROR(
          mc::copy_part("logprobs", memory, 0, plan.up_end, cudaMemcpyHostToDevice, queue));
      MMCORE_RETURN_IF_ERROR(
          mc::row_logprobs(problem, mc::at<mc::LogprobRequest>(device, plan.requests),
                           static_cast<int32_t>(requests.all.size()), nullptr,
                           mc::at<mc::LogprobEntry>(device, plan.entries),
                           mc::at<int32_t>(device, plan.logprob_outcomes), queue));
      return mc::copy_part("logprobs", memory, plan.down, plan.down_end, cudaMemcpyDeviceToHost,
                           queue);
    };
    const Status queued = queue_all();
    const Status done = mc::cuda_status("logprobs", cudaStreamSynchronize(queue));
    MMCORE_RETURN_IF_ERROR(queued);
    MMCORE_RETURN_IF_ERROR(done);
    const auto* outcomes = mc::at<int32_t>(memory.host(), plan.logprob_outcomes);
    const auto* entries = mc::at<mc::LogprobEntry>(memory.host(), plan.entries);
    for (size_t r = 0; r < requests.all.size(); ++r) {
      const mc::LogprobRequest& request = requests.all[r];
      const auto i = static_cast<size_t>(request.row);
      const int64_t wanted = std::min<int64_t>(num[i], problem.vocab);
      if (outcomes[r] != mc::kPicked) {
        status[i] =
            outcomes[r] == mc::kNaNInLogits ? nan_in_row(request.row) : nothing_in_row(request.row);
      } else if (wanted > request.num) {
        status[i] = mc::list_on_host(logits, request.row, targets[i], wanted, out[i]);
      } else {
        mc::read_entries(request, entries, out[i]);
      }
    }
  }
  for (const Status& s : status) MMCORE_RETURN_IF_ERROR(s);
  return {};
}

}  // namespace mmcore::ops::cuda
