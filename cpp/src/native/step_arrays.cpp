#include "native/step_arrays.h"

#include <algorithm>
#include <string>
#include <utility>

namespace mmcore::native {

namespace {

constexpr int64_t kAlignment = 64;  // kernels load up to 16 bytes at a time
constexpr int64_t kWidthStep = 8;   // blocks; plans pad tables to a multiple of it

template <class T>
int64_t size_of_vector(const std::vector<T>& values) {
  return static_cast<int64_t>(values.size());
}

}  // namespace

struct StepArrays::Counts {
  int64_t tokens = 0, sequences = 0, samples = 0, max_query_len = 0;
  int64_t sources = 0, feature_rows = 0, prompt_rows = 0, copies = 0, cells = 0;
};

struct StepArrays::Places {
  Region token_ids, positions, slots, query_start, seq_lens, sample_rows;
  Region temperature, top_p, min_p, top_k, seed, counter;
  std::vector<Region> plans;
  Region sources, prompt_rows, feature_rows, copies, tables;
  int64_t bytes = 0;

  template <class T>
  Region next(int64_t count) {
    const Region region{bytes, count};
    bytes += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return region;
  }
};

StepArrays::StepArrays(const Place& place, const TextConfig& text, std::vector<int32_t> windows,
                       const StepLimits& limits)
    : place_(place), text_(text), windows_(std::move(windows)) {
  table_width_ = (limits.blocks + kWidthStep - 1) / kWidthStep * kWidthStep;
  if (place_.on_gpu()) {
    const auto properties = gpu::properties(place_.device);
    if (!properties.ok()) throw OutOfGpuMemory(properties.status());
    multiprocessors_ = properties.value().multiprocessors;
    Result<gpu::Event> event = gpu::Event::make(place_.device);
    if (!event.ok()) throw OutOfGpuMemory(event.status());
    sent_ = std::move(event).value();
    decode_tables_ = OwnedTensor(DType::kInt32, {limits.sequences, table_width_}, place_.device);
  }
  const int64_t rows = std::max(limits.tokens, limits.sequences);
  reserve(arrange({.tokens = rows,
                   .sequences = limits.sequences,
                   .samples = limits.sequences,
                   .max_query_len = 0,
                   .sources = rows,
                   .feature_rows = 2 * rows,
                   .prompt_rows = rows,
                   .copies = 2 * limits.sequences,
                   .cells = limits.sequences * table_width_})
              .bytes);
}

ops::AttentionPlanShape StepArrays::shape(size_t window, const Counts& counts) const {
  return {.sequences = counts.sequences,
          .tokens = counts.tokens,
          .max_query_len = counts.max_query_len,
          .heads = text_.num_heads,
          .kv_heads = text_.num_kv_heads,
          .head_dim = text_.head_dim,
          .window = windows_[window],
          .causal = true,
          .multiprocessors = multiprocessors_};
}

int64_t StepArrays::attention_workspace_bytes() const {
  int64_t most = 0;
  for (size_t i = 0; i < windows_.size(); ++i)
    most = std::max(most,
                    ops::paged_attention_workspace_bytes(shape(i, {.tokens = 1, .sequences = 1})));
  return most;
}

bool StepArrays::attention_supported() const {
  return ops::attention_plan_words(shape(0, {.tokens = 1, .sequences = 1})) >= 0;
}

StepArrays::Places StepArrays::arrange(const Counts& counts) const {
  Places places;
  places.token_ids = places.next<int32_t>(counts.tokens);
  places.positions = places.next<int64_t>(counts.tokens);
  places.slots = places.next<int64_t>(counts.tokens);
  places.query_start = places.next<int32_t>(counts.sequences + 1);
  places.seq_lens = places.next<int32_t>(counts.sequences);
  places.sample_rows = places.next<int32_t>(counts.samples);
  places.temperature = places.next<float>(counts.samples);
  places.top_p = places.next<float>(counts.samples);
  places.min_p = places.next<float>(counts.samples);
  places.top_k = places.next<int32_t>(counts.samples);
  places.seed = places.next<int64_t>(counts.samples);
  places.counter = places.next<int64_t>(counts.samples);
  if (place_.on_gpu()) {
    for (size_t i = 0; i < windows_.size(); ++i)
      places.plans.push_back(
          places.next<int32_t>(std::max<int64_t>(0, ops::attention_plan_words(shape(i, counts)))));
  }
  places.sources = places.next<int64_t>(counts.sources);
  places.prompt_rows = places.next<int32_t>(counts.prompt_rows);
  places.feature_rows = places.next<int64_t>(counts.feature_rows);
  places.copies = places.next<int64_t>(2 * counts.copies);
  places.tables = places.next<int32_t>(counts.cells);
  return places;
}

void StepArrays::reserve(int64_t bytes) {
  if (target_.present() && bytes <= target_.view().size(0)) return;
  target_ = OwnedTensor(DType::kUInt8, {bytes}, place_.device);
  if (!place_.on_gpu()) return;
  Result<gpu::Memory> pinned = gpu::Memory::pinned(place_.device, bytes);
  if (!pinned.ok()) throw OutOfGpuMemory(pinned.status());
  pinned_ = std::move(pinned).value();
}

template <class T>
T* StepArrays::write_at(const Region& region) const {
  void* base = place_.on_gpu() ? pinned_.data() : target_.view().data;
  return reinterpret_cast<T*>(static_cast<uint8_t*>(base) + region.at);
}

template <class T>
TensorView StepArrays::view(const Region& region, DType dtype) const {
  return TensorView(static_cast<uint8_t*>(target_.view().data) + region.at, dtype, {region.count},
                    place_.device);
}

Status StepArrays::plan_attention(const StepPlan& plan, const Counts& counts, const Places& places,
                                  StepTensors& step) {
  step.plans.clear();
  const int64_t n = size_of_vector(plan.sequences);
  // Plans are read only; views have no const.
  const TensorView starts(const_cast<int32_t*>(plan.query_start.data()), DType::kInt32, {n + 1});
  const TensorView lengths(const_cast<int32_t*>(plan.seq_lens.data()), DType::kInt32, {n});
  for (size_t i = 0; i < places.plans.size(); ++i) {
    const Region& region = places.plans[i];
    MMCORE_RETURN_IF_ERROR(ops::plan_paged_attention(
        starts, lengths, shape(i, counts),
        TensorView(write_at<int32_t>(region), DType::kInt32, {region.count})));
    step.plans.push_back(view<int32_t>(region, DType::kInt32));
  }
  return {};
}

Status StepArrays::fill(const StepPlan& plan, const StepMedia& media, const Counts& counts,
                        const Places& places, StepTensors& step) {
  if (place_.on_gpu()) MMCORE_RETURN_IF_ERROR(sent_.wait());
  reserve(places.bytes);
  // What a place holds beyond the plan's values is `rest`.
  const auto put = [&]<class T>(const Region& region, const std::vector<T>& values, T rest,
                                DType dtype) {
    T* const to = write_at<T>(region);
    std::fill(std::copy(values.begin(), values.end(), to), to + region.count, rest);
    return region.count == 0 ? TensorView() : view<T>(region, dtype);
  };
  step.token_ids = put(places.token_ids, plan.token_ids, 0, DType::kInt32);
  step.positions = put(places.positions, plan.positions, int64_t{0}, DType::kInt64);
  step.slots = put(places.slots, plan.slot_mapping, int64_t{-1}, DType::kInt64);
  step.query_start =
      put(places.query_start, plan.query_start, plan.query_start.back(), DType::kInt32);
  step.seq_lens = put(places.seq_lens, plan.seq_lens, 0, DType::kInt32);
  step.sample_rows = put(places.sample_rows, plan.sample_rows, 0, DType::kInt32);
  step.sources = put(places.sources, media.sources, int64_t{-1}, DType::kInt64);
  step.prompt_rows = put(places.prompt_rows, plan.prompt_logprob_rows, 0, DType::kInt32);
  step.feature_rows = put(places.feature_rows, media.feature_rows, int64_t{-1}, DType::kInt64);
  const auto column = [&]<class T>(const Region& region, DType dtype, auto&& of) {
    T* const to = write_at<T>(region);
    for (size_t i = 0; i < plan.sampling.size(); ++i) to[i] = static_cast<T>(of(plan.sampling[i]));
    std::fill(to + plan.sampling.size(), to + region.count, T{});
    return view<T>(region, dtype);
  };
  step.temperature = column.template operator()<float>(
      places.temperature, DType::kFloat32, [](const SampleRow& row) { return row.temperature; });
  step.top_p = column.template operator()<float>(places.top_p, DType::kFloat32,
                                                 [](const SampleRow& row) { return row.top_p; });
  step.min_p = column.template operator()<float>(places.min_p, DType::kFloat32,
                                                 [](const SampleRow& row) { return row.min_p; });
  step.top_k = column.template operator()<int32_t>(places.top_k, DType::kInt32,
                                                   [](const SampleRow& row) { return row.top_k; });
  step.seed = column.template operator()<int64_t>(places.seed, DType::kInt64,
                                                  [](const SampleRow& row) { return row.seed; });
  step.counter = column.template operator()<int64_t>(
      places.counter, DType::kInt64, [](const SampleRow& row) { return row.counter; });
  step.block_copies = {};
  if (!plan.block_copies.empty()) {
    auto* to = write_at<int64_t>(places.copies);
    for (const BlockCopy& copy : plan.block_copies) {
      *to++ = copy.src;
      *to++ = copy.dst;
    }
    step.block_copies = TensorView(view<int64_t>(places.copies, DType::kInt64).data, DType::kInt64,
                                   {size_of_vector(plan.block_copies), 2}, place_.device);
  }
  std::copy(plan.block_tables.begin(), plan.block_tables.end(), write_at<int32_t>(places.tables));
  step.max_query_len = counts.max_query_len;
  MMCORE_RETURN_IF_ERROR(plan_attention(plan, counts, places, step));
  if (!place_.on_gpu()) return {};
  MMCORE_RETURN_IF_ERROR(copy(place_, target_.view().data, pinned_.data(), places.bytes));
  return sent_.record(place_.stream);
}

Status StepArrays::read(const StepPlan& plan, const StepMedia& media, StepTensors& step) {
  const Counts counts{.tokens = size_of_vector(plan.token_ids),
                      .sequences = size_of_vector(plan.sequences),
                      .samples = size_of_vector(plan.sample_rows),
                      .max_query_len = plan.max_query_len,
                      .sources = size_of_vector(media.sources),
                      .feature_rows = size_of_vector(media.feature_rows),
                      .prompt_rows = size_of_vector(plan.prompt_logprob_rows),
                      .copies = size_of_vector(plan.block_copies),
                      .cells = size_of_vector(plan.block_tables)};
  const Places places = arrange(counts);
  MMCORE_RETURN_IF_ERROR(fill(plan, media, counts, places, step));
  step.block_tables =
      TensorView(view<int32_t>(places.tables, DType::kInt32).data, DType::kInt32,
                 {counts.sequences, int64_t{plan.block_table_width}}, place_.device);
  return {};
}

Status StepArrays::read_decode(const StepPlan& plan, int64_t rows, StepTensors& step) {
  const Counts counts{.tokens = rows,
                      .sequences = rows,
                      .samples = rows,
                      .max_query_len = 1,
                      .copies = size_of_vector(plan.block_copies),
                      .cells = size_of_vector(plan.block_tables)};
  const Places places = arrange(counts);
  MMCORE_RETURN_IF_ERROR(fill(plan, {}, counts, places, step));
  constexpr int64_t kCell = sizeof(int32_t);
  // A plan's table may be wider than the longest sequence needs.
  const int64_t width = std::min<int64_t>(plan.block_table_width, table_width_);
  MMCORE_RETURN_IF_ERROR(copy_rows(place_, decode_tables_.view().data, table_width_ * kCell,
                                   view<int32_t>(places.tables, DType::kInt32).data,
                                   plan.block_table_width * kCell, width * kCell,
                                   size_of_vector(plan.sequences)));
  step.block_tables = decode_tables_.rows(0, rows);
  return {};
}

}  // namespace mmcore::native
