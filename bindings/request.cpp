// What Python submits: SamplingParams, MediaItem, Request.
#include "mmcore/request.h"

#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "errors.h"
#include "module.h"

namespace py = pybind11;

namespace mmcore::python {
namespace {

py::bytes id_bytes(const MediaItem& item) {
  return {reinterpret_cast<const char*>(item.id.bytes.data()), item.id.bytes.size()};
}

ContentId id_from(const py::bytes& bytes) {
  const auto view = static_cast<std::string_view>(bytes);
  ContentId id;
  if (!view.empty() && view.size() != id.bytes.size()) {
    throw_error(
        Status::invalid_argument("a content id has 32 bytes, or none for a private item; got " +
                                 std::to_string(view.size()) + "."));
  }
  std::copy(view.begin(), view.end(), id.bytes.begin());
  return id;
}

MediaItem make_item(MediaKind kind, const py::bytes& id, int32_t offset, int32_t length,
                    const py::bytes& embed_mask) {
  const auto mask = static_cast<std::string_view>(embed_mask);
  return {kind, id_from(id), offset, length, {mask.begin(), mask.end()}};
}

template <class... Names>
void read_write(py::class_<SamplingParams>& cls, Names... fields) {
  (cls.def_readwrite(fields.first, fields.second), ...);
}

}  // namespace

void bind_request(py::module_& m) {
  py::native_enum<MediaKind>(m, "MediaKind", "enum.IntEnum", "What a media item is.")
      .value("IMAGE", MediaKind::kImage)
      .value("AUDIO", MediaKind::kAudio)
      .value("VIDEO", MediaKind::kVideo)
      .value("OTHER", MediaKind::kOther)
      .finalize();
  py::native_enum<FinishReason>(m, "FinishReason", "enum.IntEnum", "Why a request ended.")
      .value("NONE", FinishReason::kNone)
      .value("STOP", FinishReason::kStop)
      .value("LENGTH", FinishReason::kLength)
      .value("ABORTED", FinishReason::kAborted)
      .value("ERROR", FinishReason::kError)
      .finalize();

  py::class_<SamplingParams> params(m, "SamplingParams",
                                    "Sampling parameters that act on token ids.");
  params.def(py::init<>());
  read_write(params, std::pair("temperature", &SamplingParams::temperature),
             std::pair("top_p", &SamplingParams::top_p), std::pair("top_k", &SamplingParams::top_k),
             std::pair("min_p", &SamplingParams::min_p),
             std::pair("presence_penalty", &SamplingParams::presence_penalty),
             std::pair("frequency_penalty", &SamplingParams::frequency_penalty),
             std::pair("repetition_penalty", &SamplingParams::repetition_penalty),
             std::pair("seed", &SamplingParams::seed),
             std::pair("max_tokens", &SamplingParams::max_tokens),
             std::pair("min_tokens", &SamplingParams::min_tokens),
             std::pair("num_logprobs", &SamplingParams::num_logprobs),
             std::pair("num_prompt_logprobs", &SamplingParams::num_prompt_logprobs),
             std::pair("ignore_eos", &SamplingParams::ignore_eos),
             std::pair("reads_history", &SamplingParams::reads_history),
             std::pair("stop_token_ids", &SamplingParams::stop_token_ids),
             std::pair("logit_bias", &SamplingParams::logit_bias),
             std::pair("allowed_token_ids", &SamplingParams::allowed_token_ids));

  py::class_<MediaItem>(m, "MediaItem", "One media item and the span of prompt tokens for it.")
      .def(py::init(&make_item), py::arg("kind"), py::arg("id"), py::arg("offset"),
           py::arg("length"), py::arg("embed_mask") = py::bytes())
      .def_readonly("kind", &MediaItem::kind)
      .def_property_readonly("id", &id_bytes)
      .def_readonly("offset", &MediaItem::offset)
      .def_readonly("length", &MediaItem::length)
      .def_property_readonly("num_embeddings", &MediaItem::num_embeddings);

  py::class_<Request>(m, "Request", "A prompt whose placeholders are expanded, and its media.")
      .def(py::init([](std::vector<TokenId> prompt_token_ids, std::vector<MediaItem> media,
                       const SamplingParams& sampling, int32_t priority, std::string cache_salt,
                       uint64_t lora_id, int32_t num_sequences, int64_t timeout_us,
                       int64_t queue_timeout_us) {
             return Request{.prompt_token_ids = std::move(prompt_token_ids),
                            .media = std::move(media),
                            .sampling = sampling,
                            .priority = priority,
                            .cache_salt = std::move(cache_salt),
                            .lora_id = lora_id,
                            .num_sequences = num_sequences,
                            .timeout_us = timeout_us,
                            .queue_timeout_us = queue_timeout_us};
           }),
           py::arg("prompt_token_ids"), py::arg("media") = std::vector<MediaItem>{},
           py::arg_v("sampling", SamplingParams{}, "SamplingParams()"), py::arg("priority") = 0,
           py::arg("cache_salt") = std::string(), py::arg("lora_id") = 0,
           py::arg("num_sequences") = 1, py::arg("timeout_us") = 0, py::arg("queue_timeout_us") = 0)
      .def_readonly("prompt_token_ids", &Request::prompt_token_ids)
      .def_readonly("media", &Request::media)
      .def_readonly("sampling", &Request::sampling)
      .def_readonly("priority", &Request::priority)
      .def_readonly("cache_salt", &Request::cache_salt)
      .def_readonly("lora_id", &Request::lora_id)
      .def_readonly("num_sequences", &Request::num_sequences)
      .def_readonly("timeout_us", &Request::timeout_us)
      .def_readonly("queue_timeout_us", &Request::queue_timeout_us);
}

}  // namespace mmcore::python
