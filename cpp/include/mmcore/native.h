// The native runner: checkpoints in Hugging Face's layout, run by mmcore::ops without Python.
//
// Architectures: LlavaForConditionalGeneration (a CLIP tower, a two-layer projector and one of the
// following), LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM. It runs on the CPU in float32
// or bfloat16, and where mmcore::kernels has CUDA on a GPU, there in float16, too. A folder holds
// config.json and *.safetensors, and optionally generation_config.json, preprocessor_config.json,
// processor_config.json and tokenizer.json.
//
//   auto runner = mmcore::native::NativeRunner::load(folder).value();
//   auto engine = mmcore::Engine::create(runner->engine_config(), runner.get()).value();
//   auto tokenizer = mmcore::native::Tokenizer::load(folder).value();
//   auto ids = tokenizer->encode("USER: <image>\nWhat is this? ASSISTANT:").value();
//   engine->submit(runner->make_request(ids, {{rgb, width, height}}).value());
//
// Threads: const functions may be called from any number of threads at once, also while the
// engine's thread runs a step. Nothing here is thrown but InternalError.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mmcore/config.h"
#include "mmcore/export.h"
#include "mmcore/local.h"
#include "mmcore/model_runner.h"
#include "mmcore/request.h"
#include "mmcore/status.h"
#include "mmcore/types.h"

namespace mmcore::native {

/// A picture of 8-bit pixels: height rows of width times R, G, B, the top row first, without gaps.
/// Views memory of the caller.
struct ImageView {
  const uint8_t* rgb = nullptr;  // 3 * width * height bytes
  int32_t width = 0;
  int32_t height = 0;
};

// ---- images

/// Prepares pictures as a checkpoint's preprocessor_config.json asks for: resize (Pillow's bicubic
/// or bilinear, with its rounding), centre crop, rescale, normalise. Gives what transformers'
/// CLIPImageProcessor gives with Pillow 13, value for value.
class MMCORE_API Preprocessor {
 public:
  /// Reads the folder's preprocessor_config.json, or processor_config.json where that holds the
  /// image processor.
  static Result<std::unique_ptr<Preprocessor>> load(const std::string& folder);
  ~Preprocessor();
  Preprocessor(const Preprocessor&) = delete;
  Preprocessor& operator=(const Preprocessor&) = delete;

  /// The size of what comes out.
  int32_t width() const;
  int32_t height() const;

  /// Resizes and crops: height() * width() pixels of R, G, B. Takes no more memory than the crop
  /// needs, however long the picture is.
  Result<std::vector<uint8_t>> crop(const ImageView& image) const;
  /// Rescales and normalises a crop: float32 [3, height, width].
  Result<std::vector<float>> normalize(std::span<const uint8_t> crop) const;
  /// Both.
  Result<std::vector<float>> operator()(const ImageView& image) const;
  /// All that the values depend on besides the picture, as a text: part of an item's identity.
  std::string description() const;

 private:
  friend class NativeRunner;
  struct MMCORE_LOCAL Impl;
  explicit Preprocessor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// ---- text

struct EncodeOptions {
  bool add_special_tokens = true;  // what the checkpoint puts around a prompt, such as <s>
  // Whether texts such as "<image>" or "</s>" in the input become the tokens of that name. Turn it
  // off for what users type, so that they cannot write control tokens.
  bool parse_special_tokens = true;
};

/// A byte-level BPE tokenizer from tokenizer.json, with the results of Hugging Face tokenizers.
/// Anything in the file that this reader does not know is refused, not guessed: bring token ids
/// then.
class MMCORE_API Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> load(const std::string& folder);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Fails with kInvalidArgument where `text` is not UTF-8.
  Result<std::vector<TokenId>> encode(std::string_view text,
                                      const EncodeOptions& options = {}) const;
  /// Bytes that are no UTF-8 become U+FFFD. Ids that are not in the vocabulary are left out.
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens = true) const;

  int32_t vocab_size() const;
  /// The id of an entry such as "<image>", or -1.
  TokenId token_id(std::string_view token) const;

 private:
  friend class TextStream;
  struct MMCORE_LOCAL Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Decodes tokens as they come. What push() and finish() return, joined, is decode() of all ids; no
/// piece ends inside a character. The tokenizer must outlive it.
class MMCORE_API TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  ~TextStream();
  TextStream(TextStream&&) noexcept;
  TextStream& operator=(TextStream&&) noexcept;

  /// Gives the text that is certain now, perhaps none.
  std::string push(TokenId id);
  /// Gives what was held back; call it once, after the last token.
  std::string finish();

 private:
  struct MMCORE_LOCAL Impl;
  std::unique_ptr<Impl> impl_;
};

// ---- the runner

struct RunnerOptions {
  /// What the model is computed in and its KV cache is stored in: kFloat32, kBFloat16, or, on a
  /// GPU, kFloat16. Absent: as the checkpoint says, float32 for one in float16 on a CPU.
  std::optional<DType> dtype = std::nullopt;
  int32_t block_size = 16;
  /// Bytes of the KV cache; at least one sequence of two blocks must fit. On a CPU it is address
  /// space first: a page takes memory when it is first written. 0: 256 MiB on a CPU, on a GPU what
  /// gpu_memory_utilization leaves.
  int64_t kv_cache_bytes = 0;
  int32_t max_model_len = 0;  // 0: the checkpoint's, or what the KV cache holds if that is less
  int32_t max_num_seqs = 256;
  int32_t max_num_batched_tokens = 2048;
  int64_t encoder_cache_rows = 0;  // 0: four times what a step may encode
  std::string device = "auto";     // "cpu", "cuda", "cuda:1" ...; auto: a GPU where there is one
  /// Share of the GPU's memory that may be in use with the KV cache, other processes' included.
  double gpu_memory_utilization = 0.9;
  bool enforce_eager = false;  // no CUDA graphs
};

/// What a host may want to know of a loaded model.
struct ModelInfo {
  std::string architecture;
  DType dtype = DType::kFloat32;
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t max_position = 0;  // positions that the checkpoint is made for
  std::vector<TokenId> eos_token_ids;
  TokenId bos_token_id = -1;    // -1: none
  TokenId image_token_id = -1;  // the placeholder; -1: the model sees no images
  int32_t image_tokens = 0;     // tokens that an image takes
  int64_t weight_bytes = 0;
  int64_t kv_bytes_per_block = 0;
  int32_t num_blocks = 0;
  Device device{};
};

/// A model with its weights and caches. One runner serves one engine.
class MMCORE_API NativeRunner final : public ModelRunner {
 public:
  /// Loads a checkpoint's folder. A missing or malformed file, a tensor that is missing,
  /// superfluous or of another shape, and what this runner cannot compute are errors that name it.
  static Result<std::unique_ptr<NativeRunner>> load(const std::string& folder,
                                                    const RunnerOptions& options = {});
  ~NativeRunner() override;
  NativeRunner(const NativeRunner&) = delete;
  NativeRunner& operator=(const NativeRunner&) = delete;

  const ModelInfo& model() const;

  /// The configuration for Engine::create: limits that follow from the checkpoint and the options.
  /// A host may change what is not about sizes: policies, queue limits, prefix caching, logprobs.
  EngineConfig engine_config() const;

  /// Makes a request of a prompt that has one placeholder (model().image_token_id) for each image,
  /// in order. Expands placeholders, resizes and crops the images on the calling thread, and gives
  /// each its identity; nothing refers to the caller's pixels after it. Set sampling and the rest
  /// of the request afterwards. kPlaceholderMismatch where placeholders and images differ in
  /// number, kMediaError for an image without pixels.
  Result<Request> make_request(std::span<const TokenId> prompt,
                               std::span<const ImageView> images = {}) const;

  /// Null for a model that sees no images.
  const Preprocessor* preprocessor() const;

  // The engine's calls. accept() refuses items that are not make_request's.
  Status accept(RequestId request, const Request& content) override;
  Status execute(const StepPlan& plan, StepResult& result) override;
  void release(RequestId request) override;

 private:
  struct MMCORE_LOCAL Impl;
  explicit NativeRunner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mmcore::native
