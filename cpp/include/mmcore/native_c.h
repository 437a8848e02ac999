/* The native runner of mmcore/native.h for C: opens a checkpoint as a runner for mmcore/c_api.h,
 * prepares prompts with images, and turns text into tokens and back. Status codes, handles,
 * threads, memory and growth are as in c_api.h.
 *
 *   mmcore_native_open(folder, NULL, &runner);
 *   mmcore_engine_create(NULL, runner, &engine);
 *   mmcore_native_submit(engine, runner, text, &image, 1, &submission, &request);
 *   mmcore_request_collect(request, -1, &output);
 *   mmcore_native_decode(runner, output.tokens, output.num_tokens, 0, answer, room, &length);
 *
 * or, for a host that wants each step in its own hands, where the first three are
 *
 *   mmcore_native_open(folder, &options, &runner);
 *   mmcore_config_init(&config, sizeof config);
 *   mmcore_native_configure(runner, &config);
 *   mmcore_engine_create(&config, runner, &engine);
 *   mmcore_native_encode(runner, text, length, 0, ids, capacity, &num_ids);
 *   mmcore_native_prepare(runner, ids, num_ids, images, 1, tokens, room, &num_tokens, items,
 *                         sizeof items[0]);
 *   mmcore_submission_init(&submission, sizeof submission);
 *   ... .prompt_token_ids = tokens, .media = items ...
 *   mmcore_engine_submit(engine, &submission, &request);
 *   mmcore_payload_destroy(items[0].payload); */
#ifndef MMCORE_NATIVE_C_H
#define MMCORE_NATIVE_C_H

#include <stdint.h>

#include "mmcore/c_api.h"
#include "mmcore/export.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  MMCORE_NATIVE_DTYPE_AUTO = -1, /* as the checkpoint says; float32 for one in float16 on a CPU */
  MMCORE_NATIVE_FLOAT32 = 0,
  MMCORE_NATIVE_BFLOAT16 = 1,
  MMCORE_NATIVE_FLOAT16 = 2 /* on a GPU */
};

/* RunnerOptions of mmcore/native.h, which explains each field. */
typedef struct mmcore_native_options {
  uint32_t struct_size;
  int32_t dtype;
  int32_t block_size;
  int32_t max_model_len;
  int32_t max_num_seqs;
  int32_t max_num_batched_tokens;
  int64_t kv_cache_bytes;
  int64_t encoder_cache_rows;
  const char* device;            /* NULL: auto. Read during mmcore_native_open only */
  double gpu_memory_utilization; /* 0: 0.9 */
  int32_t enforce_eager;         /* 1: no CUDA graphs */
  int32_t reserved0;             /* 0 */
} mmcore_native_options;

MMCORE_API mmcore_status mmcore_native_options_init(mmcore_native_options* options,
                                                    uint32_t struct_size);

/* Loads a checkpoint's folder; `options` may be NULL. One runner serves one engine. */
MMCORE_API mmcore_status mmcore_native_open(const char* folder,
                                            const mmcore_native_options* options,
                                            mmcore_runner* runner);

/* ModelInfo of mmcore/native.h. */
typedef struct mmcore_native_info {
  uint32_t struct_size;
  int32_t dtype;
  int32_t vocab_size;
  int32_t hidden_size;
  int32_t num_layers;
  int32_t max_position;
  int32_t bos_token_id;   /* -1: none */
  int32_t image_token_id; /* -1: the model sees no images */
  int32_t image_tokens;
  int32_t num_blocks;
  int32_t has_tokenizer; /* 0: mmcore_native_encode says why */
  int32_t reserved0;
  int64_t weight_bytes;
  int64_t kv_bytes_per_block;
  int32_t gpu; /* -1: the model is on the CPU */
  int32_t reserved1;
} mmcore_native_info;

/* `info->struct_size` says how much is wanted. */
MMCORE_API mmcore_status mmcore_native_describe(mmcore_runner runner, mmcore_native_info* info);

/* Sets what of a configuration follows from the checkpoint and the options, and leaves the rest.
 * eos_token_ids points into the runner, and is valid until its destruction. */
MMCORE_API mmcore_status mmcore_native_configure(mmcore_runner runner, mmcore_config* config);

/* 8-bit pixels: height rows of width times R, G, B, without gaps. */
typedef struct mmcore_native_image {
  const uint8_t* rgb;
  int32_t width;
  int32_t height;
} mmcore_native_image;

/* Prepares a prompt that has one placeholder token (mmcore_native_info.image_token_id) for each
 * image, in order. Writes the prompt with expanded placeholders to `token_ids`, and their number to
 * `num_token_ids`, also where it is above `capacity` (MMCORE_BUFFER_TOO_SMALL). Writes an item for
 * each image to `media` [num_images], whose elements are `media_item_size` bytes; the caller
 * destroys their payloads, once requests that carry them are submitted. After a failure there are
 * none. */
MMCORE_API mmcore_status mmcore_native_prepare(mmcore_runner runner, const int32_t* prompt,
                                               int64_t num_prompt,
                                               const mmcore_native_image* images,
                                               int64_t num_images, int32_t* token_ids,
                                               int64_t capacity, int64_t* num_token_ids,
                                               mmcore_media_item* media, uint32_t media_item_size);

enum {
  /* of mmcore_native_encode */
  MMCORE_NATIVE_NO_SPECIAL = 1, /* nothing is put around the text, such as <s> */
  MMCORE_NATIVE_TYPED_TEXT = 2, /* "<image>" and the like in it are text, not tokens */
  /* of mmcore_native_decode */
  MMCORE_NATIVE_KEEP_SPECIAL = 4, /* write special tokens, too */
  MMCORE_NATIVE_HOLD_BACK = 8     /* more ids may follow: leave out what is not certain yet */
};

/* Turns UTF-8 into token ids. Writes their number also where it is above `capacity`
 * (MMCORE_BUFFER_TOO_SMALL). MMCORE_UNSUPPORTED or MMCORE_NOT_FOUND where the checkpoint has no
 * tokenizer that the library reads. */
MMCORE_API mmcore_status mmcore_native_encode(mmcore_runner runner, const char* text,
                                              int64_t length, uint32_t flags, int32_t* token_ids,
                                              int64_t capacity, int64_t* num_token_ids);

/* Submits a text, ended by 0, with its images: encodes and prepares it and hands it in, in one
 * call. `submission` has the rest, or is NULL for the defaults; its prompt and media must be empty.
 * The request is to be destroyed. Text that users typed goes through mmcore_native_encode instead,
 * with MMCORE_NATIVE_TYPED_TEXT. */
MMCORE_API mmcore_status mmcore_native_submit(mmcore_engine engine, mmcore_runner runner,
                                              const char* text, const mmcore_native_image* images,
                                              int64_t num_images,
                                              const mmcore_submission* submission,
                                              mmcore_request* request);

/* Turns token ids into UTF-8, ended by 0, for which `capacity` counts one more; `length` does not.
 * With MMCORE_NATIVE_HOLD_BACK, what the first n ids give is the beginning of what n + 1 give. */
MMCORE_API mmcore_status mmcore_native_decode(mmcore_runner runner, const int32_t* token_ids,
                                              int64_t num_token_ids, uint32_t flags, char* text,
                                              int64_t capacity, int64_t* length);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MMCORE_NATIVE_C_H */
