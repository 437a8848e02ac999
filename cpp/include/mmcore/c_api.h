/* The engine for C, and for whatever can call C: Rust, Go, Java, C#. C11; plain structs and
 * fixed-width integers; no bit fields, no unions, and no callback that a host must bring.
 *
 * Status     Every function returns MMCORE_OK or a code. The text for a failure is the calling
 *            thread's mmcore_last_error(). Nothing is thrown across this border, and no misuse that
 *            is named here crashes.
 *
 * Handles    A number that names an object; 0 names none. A handle is never given out twice: using
 *            or destroying one after its destruction, or one of another kind, gives
 *            MMCORE_INVALID_HANDLE. Whoever gets a handle from a function destroys it, once.
 *            Objects that need each other keep each other: handles may be destroyed in any order.
 *
 * Threads    Any thread may call anything at any time. Host functions (a runner's, callbacks) run
 *            on the engine's own thread, and may call everything, too; what would wait there for
 *            the engine's thread itself gives MMCORE_WRONG_THREAD. After fork() only the parent may
 *            go on: in the child what takes a handle gives MMCORE_SHUTDOWN.
 *
 * Memory     Pointers given to a function are read during the call only. Pointers given to a host
 *            function are valid until it returns. Results are copied into the caller's buffers.
 *
 * Growth     The first field of a struct is its size; the _init functions set it. Fields are only
 *            ever added at the end. A caller that is older than the library gets defaults for
 *            fields that it does not know; a newer one is refused with MMCORE_UNSUPPORTED if it
 *            sets a field that the library does not know. Structs without struct_size, which are
 *            elements of arrays, never change. Codes and constants are never reused.
 *
 * Times      Microseconds. A timeout below 0 waits for ever, 0 does not wait.
 *
 * One file in spite of its length: binding generators of other languages read one header. */
#ifndef MMCORE_C_API_H
#define MMCORE_C_API_H

#include <stdint.h>

#include "mmcore/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Versions, codes ---------------------------------------------------------------------------
 */

/* Of this header: major << 16 | minor. The library serves every header of its major version whose
 * minor is not above its own. */
#define MMCORE_C_ABI_VERSION UINT32_C(0x00010001)

typedef int32_t mmcore_status;
enum {
  MMCORE_OK = 0,
  MMCORE_INVALID_ARGUMENT = 1,
  MMCORE_UNSERVABLE = 2,
  MMCORE_MEDIA_ERROR = 3,
  MMCORE_PLACEHOLDER_MISMATCH = 4,
  MMCORE_OVERLOADED = 5, /* no place for another request; later there may be one */
  MMCORE_NOT_FOUND = 6,
  MMCORE_ABORTED = 7,
  MMCORE_SHUTDOWN = 8,
  MMCORE_UNSUPPORTED = 9,
  MMCORE_INTERNAL = 10,
  MMCORE_TIMEOUT = 11,
  /* of this border alone */
  MMCORE_INVALID_HANDLE = 100,
  MMCORE_OUT_OF_MEMORY = 101,
  MMCORE_WRONG_THREAD = 102,
  MMCORE_BUFFER_TOO_SMALL = 103,
  MMCORE_END = 104 /* a request has given everything */
};

/* MMCORE_C_ABI_VERSION of the library. */
MMCORE_API uint32_t mmcore_abi_version(void);

/* "0.1.0". */
MMCORE_API const char* mmcore_version(void);

/* A code in snake_case, "unknown" for others. */
MMCORE_API const char* mmcore_status_name(mmcore_status status);

/* What the calling thread's last failed call had to say; never NULL. Valid until its next call. A
 * language that moves its threads of execution between those of the system pins them around the two
 * calls (Go: runtime.LockOSThread). */
MMCORE_API const char* mmcore_last_error(void);

/* ---- Handles ------------------------------------------------------------------------------------
 */

typedef uint64_t mmcore_engine;  /* an engine and its thread */
typedef uint64_t mmcore_runner;  /* what computes the model */
typedef uint64_t mmcore_request; /* one request, to be read */
typedef uint64_t mmcore_payload; /* an item's data, made by a runner's own functions */

/* ---- Configuration ------------------------------------------------------------------------------
 */

enum { MMCORE_POLICY_FCFS = 0, MMCORE_POLICY_PRIORITY = 1, MMCORE_POLICY_LONGEST_PREFIX = 2 };

/* EngineConfig and EngineLoopOptions of mmcore/config.h and engine_loop.h, which explain each
 * field. Switches are 0 or 1. */
typedef struct mmcore_config {
  uint32_t struct_size;
  int32_t block_size;
  int32_t num_blocks; /* to be set */
  int32_t enable_prefix_caching;
  int32_t share_within_step;
  int32_t hash_bits;
  uint64_t hash_key;
  int32_t max_model_len; /* to be set */
  int32_t max_num_seqs;
  int32_t max_num_batched_tokens;
  int32_t enable_chunked_prefill;
  int32_t max_prefill_chunk;
  int32_t policy;
  int32_t max_preemptions;
  int32_t max_queued_requests;
  int64_t max_queued_tokens;
  int64_t step_watchdog_us;
  int64_t encoder_budget;
  int64_t encoder_cache_rows;
  int32_t multimodal;
  int32_t split_media_items;
  int32_t vocab_size; /* to be set */
  int32_t logits_size;
  const int32_t* eos_token_ids;
  int64_t num_eos_token_ids;
  int32_t max_logprobs;
  int32_t max_logit_bias;
  int32_t max_stop_token_ids;
  int32_t max_sequences;
  int32_t max_unfinished;
  int32_t async_schedule;
  int32_t num_host_blocks;
  int32_t headroom;
} mmcore_config;

/* Fills in the defaults. struct_size is sizeof(mmcore_config). */
MMCORE_API mmcore_status mmcore_config_init(mmcore_config* config, uint32_t struct_size);

/* ---- A step, for a host's own runner ------------------------------------------------------------
 */

/* StepPlan of mmcore/model_runner.h, which explains each field. Rows are rows of the flat arrays.
 */
typedef struct mmcore_sequence {
  uint64_t request;
  int32_t sequence;
  int32_t first_row;
  int32_t num_tokens;
  int32_t num_computed;
  int32_t is_prefill;
  int32_t sample_row; /* index into sample_rows and sampling, or -1 */
} mmcore_sequence;

typedef struct mmcore_logit_bias {
  int32_t token;
  float bias;
} mmcore_logit_bias;

typedef struct mmcore_sample_row {
  float temperature; /* below 1e-5: take the largest logit */
  float top_p;
  int32_t top_k;
  float min_p;
  float presence_penalty;
  float frequency_penalty;
  float repetition_penalty;
  int32_t num_logprobs; /* -1: none */
  uint64_t seed;
  uint64_t counter;
  const int32_t* prompt_tokens;
  const int32_t* output_tokens;
  const mmcore_logit_bias* logit_bias;
  const int32_t* allowed_tokens; /* none: all */
  const int32_t* banned_tokens;
  int64_t num_prompt_tokens;
  int64_t num_output_tokens;
  int64_t num_logit_bias;
  int64_t num_allowed_tokens;
  int64_t num_banned_tokens;
} mmcore_sample_row;

typedef struct mmcore_block_copy {
  int32_t src;
  int32_t dst;
} mmcore_block_copy;

typedef struct mmcore_host_copy {
  int32_t block;
  int32_t host_block;
} mmcore_host_copy;

typedef struct mmcore_encode_item {
  uint64_t request;
  int64_t slot;
  int64_t num_embeddings;
  int32_t item_index;
  int32_t reserved0;
} mmcore_encode_item;

typedef struct mmcore_embedding_copy {
  uint64_t request;
  int64_t slot;
  int32_t item_index;
  int32_t src_row;
  int32_t dst_row;
  int32_t num_rows;
} mmcore_embedding_copy;

/* The order of work: evict, host_saves, host_loads, block_copies, encode, embeddings, decoder,
 * sampling. */
typedef struct mmcore_step {
  uint32_t struct_size;
  int32_t block_table_width;
  uint64_t step;
  int64_t num_sequences;           /* N */
  int64_t num_tokens;              /* T */
  int64_t num_sample_rows;         /* S */
  int64_t num_prompt_logprob_rows; /* P */
  int64_t num_host_saves;
  int64_t num_host_loads;
  int64_t num_block_copies;
  int64_t num_encode;
  int64_t num_embeddings;
  int64_t num_evict;
  const mmcore_sequence* sequences;      /* [N] */
  const int32_t* token_ids;              /* [T] */
  const int64_t* positions;              /* [T] */
  const int64_t* slot_mapping;           /* [T] */
  const int32_t* query_start;            /* [N + 1] */
  const int32_t* seq_lens;               /* [N] */
  const int32_t* block_tables;           /* [N, block_table_width] */
  const int32_t* sample_rows;            /* [S] */
  const mmcore_sample_row* sampling;     /* [S] */
  const int32_t* prompt_logprob_rows;    /* [P] */
  const int32_t* prompt_logprob_targets; /* [P] */
  const int32_t* prompt_logprob_counts;  /* [P] */
  const mmcore_host_copy* host_saves;
  const mmcore_host_copy* host_loads;
  const mmcore_block_copy* block_copies;
  const mmcore_encode_item* encode;
  const mmcore_embedding_copy* embeddings;
  const int64_t* evict;
  int32_t max_query_len;
  int32_t max_seq_len;
  /* NULL where all tokens are known, else [T]: where token_ids has -1, the index into the samples
   * of the step begun before this one whose token it is; -1 elsewhere. Only in steps that overlap.
   */
  const int32_t* token_sources;
} mmcore_step;

typedef struct mmcore_logprob {
  int32_t token;
  float logprob;
  int32_t rank; /* 1: the most likely */
} mmcore_logprob;

/* Room for the runner's answer; the library owns it and has set it to what is written here. */
typedef struct mmcore_step_result {
  uint32_t struct_size;
  uint32_t reserved0;
  int32_t* tokens;          /* [S] -1: every one must be set, to a token below vocab_size */
  int32_t* sequence_status; /* [N] MMCORE_OK; a code here fails that request and undoes the step */
  /* Logprobs of sample row i go to logprobs[logprob_starts[i] ...], at most up to
   * logprob_starts[i + 1]: the sampled token's first, then the most likely ones'. */
  const int64_t* logprob_starts; /* [S + 1] */
  mmcore_logprob* logprobs;
  int32_t* logprob_counts; /* [S] 0 */
  /* Likewise for prompt_logprob_rows. */
  const int64_t* prompt_logprob_starts; /* [P + 1] */
  mmcore_logprob* prompt_logprobs;
  int32_t* prompt_logprob_counts; /* [P] 0 */
  char* message;                  /* why something failed, ended by 0; empty */
  int64_t message_capacity;
} mmcore_step_result;

/* ---- Media, requests ----------------------------------------------------------------------------
 */

enum {
  MMCORE_MEDIA_IMAGE = 0,
  MMCORE_MEDIA_AUDIO = 1,
  MMCORE_MEDIA_VIDEO = 2,
  MMCORE_MEDIA_OTHER = 3
};

/* One item and the span of prompt tokens that stands for it. The elements of an array of items all
 * have the same struct_size, which is the distance between them. */
typedef struct mmcore_media_item {
  uint32_t struct_size;
  int32_t kind;
  uint8_t content_id[32]; /* mmcore_content_id; all 0: shared with no other request */
  int32_t offset;         /* first token of the span */
  int32_t length;
  const uint8_t* embed_mask; /* NULL: all ones; else one 0 or 1 a token */
  int64_t embed_mask_length;
  mmcore_payload payload; /* for a runner that makes payloads, or 0 */
  void* user_data;        /* for a runner of mmcore_runner_create */
} mmcore_media_item;

typedef struct mmcore_sampling {
  uint32_t struct_size;
  float temperature;
  float top_p;
  int32_t top_k;
  float min_p;
  float presence_penalty;
  float frequency_penalty;
  float repetition_penalty;
  uint64_t seed;
  int32_t max_tokens;
  int32_t min_tokens;
  int32_t num_logprobs;
  int32_t num_prompt_logprobs;
  int32_t ignore_eos;
  int32_t reads_history;
  const int32_t* stop_token_ids;
  const mmcore_logit_bias* logit_bias;
  const int32_t* allowed_token_ids;
  int64_t num_stop_token_ids;
  int64_t num_logit_bias;
  int64_t num_allowed_token_ids;
} mmcore_sampling;

MMCORE_API mmcore_status mmcore_sampling_init(mmcore_sampling* sampling, uint32_t struct_size);

typedef struct mmcore_submission {
  uint32_t struct_size;
  int32_t priority;
  const int32_t* prompt_token_ids; /* placeholders expanded */
  int64_t num_prompt_token_ids;
  const mmcore_media_item* media; /* in prompt order */
  int64_t num_media;
  const mmcore_sampling* sampling; /* NULL: the defaults */
  const char* cache_salt;          /* bytes; requests with different salts share no cache */
  int64_t cache_salt_length;
  uint64_t lora_id;
  int64_t timeout_us;       /* 0: none */
  int64_t queue_timeout_us; /* 0: none */
  int64_t place_timeout_us; /* how long submitting may wait for a place */
  void* user_data;          /* for the runner's accept */
  int32_t num_sequences;
  int32_t reserved0;
} mmcore_submission;

MMCORE_API mmcore_status mmcore_submission_init(mmcore_submission* submission,
                                                uint32_t struct_size);

/* SHA-256 over length-framed pieces that say what an item is: kind, dtype, shape, mode, pixels, the
 * processor's configuration. `id` has room for 32 bytes. */
MMCORE_API mmcore_status mmcore_content_id(const void* const* frames, const int64_t* lengths,
                                           int64_t num_frames, uint8_t* id);

/* ---- Runners ------------------------------------------------------------------------------------
 */

/* A host's own runner. ModelRunner of mmcore/model_runner.h is the contract. All are called on the
 * engine's thread, one at a time an engine; `context` is the host's. */
typedef struct mmcore_runner_functions {
  uint32_t struct_size;
  int32_t num_host_blocks; /* that it can save KV blocks to; 0: none */
  /* Runs one step. A code other than MMCORE_OK is a failure of the step as a whole. May be NULL
   * where begin and end are set. */
  mmcore_status (*execute)(void* context, const mmcore_step* step, mmcore_step_result* result);
  /* May be NULL. Tells of a request before any step names it; a code refuses it. */
  mmcore_status (*accept)(void* context, uint64_t request, const mmcore_submission* submission);
  /* May be NULL. Tells that a request is gone. */
  void (*release)(void* context, uint64_t request);
  /* May be NULL. Called once, on any thread, when nothing uses the runner any more. */
  void (*destroy)(void* context);
  /* Both, or neither: for a runner that takes a step while the one before it runs. With
   * mmcore_config.async_schedule the engine calls these instead of execute.
   *
   * begin takes a step and returns when its work is launched. At most two steps are begun and not
   * ended; they run in the order of their begin. Unknown tokens (token_sources) are samples of the
   * step begun before this one. `step` and `result` stay where they are, with all that they point
   * to, until end has returned for this step: the answer may be written at any time before, on any
   * thread. A code other than MMCORE_OK means that the step was not taken, and end is not called
   * for it; where sequence_status names requests they are at fault, and nobody else.
   *
   * end waits for the oldest step begun, whose `step` and `result` it gets again, and is like
   * execute otherwise. Where a step fails, the one begun behind it is ended too, and its answer is
   * dropped. */
  mmcore_status (*begin)(void* context, const mmcore_step* step, mmcore_step_result* result);
  mmcore_status (*end)(void* context, const mmcore_step* step, mmcore_step_result* result);
} mmcore_runner_functions;

MMCORE_API mmcore_status mmcore_runner_create(const mmcore_runner_functions* functions,
                                              void* context, mmcore_runner* runner);
/* An engine that uses it goes on. */
MMCORE_API mmcore_status mmcore_runner_destroy(mmcore_runner runner);
/* Requests that carry it go on. */
MMCORE_API mmcore_status mmcore_payload_destroy(mmcore_payload payload);

/* ---- Outputs ------------------------------------------------------------------------------------
 */

enum {
  MMCORE_FINISH_NONE = 0, /* still running */
  MMCORE_FINISH_STOP = 1,
  MMCORE_FINISH_LENGTH = 2,
  MMCORE_FINISH_ABORTED = 3,
  MMCORE_FINISH_ERROR = 4
};

/* What changed for one sequence of a request. For mmcore_request_read, each array is a buffer of
 * the caller's with its capacity in elements, and what does not fit gives MMCORE_BUFFER_TOO_SMALL,
 * with the numbers that are needed, and stays to be read; NULL means not wanted. Messages are cut.
 * For a callback they are the library's. */
typedef struct mmcore_output {
  uint32_t struct_size;
  int32_t sequence;
  uint64_t request_id;
  int32_t finish_reason;
  int32_t stop_token;  /* the stop_token_ids entry that ended it, or -1 */
  mmcore_status error; /* with MMCORE_FINISH_ERROR; `message` says why */
  int32_t num_cached_tokens;
  int32_t num_preemptions;
  int32_t reserved0;
  int32_t* tokens;
  int64_t tokens_capacity;
  int64_t num_tokens;
  mmcore_logprob* logprobs; /* those of the first token, of the second ... */
  int64_t logprobs_capacity;
  int64_t num_logprobs;
  int32_t* logprob_counts; /* how many each token has */
  int64_t logprob_counts_capacity;
  mmcore_logprob* prompt_logprobs; /* likewise for prompt positions from 1 on */
  int64_t prompt_logprobs_capacity;
  int64_t num_prompt_logprobs;
  int32_t* prompt_logprob_counts;
  int64_t prompt_logprob_counts_capacity;
  int64_t num_prompt_positions;
  char* message; /* ended by 0 */
  int64_t message_capacity;
  int64_t message_length; /* of the whole message, without the 0 */
} mmcore_output;

/* Called on the engine's thread for every output of a request, in order. */
typedef void (*mmcore_output_callback)(void* user_data, const mmcore_output* output);

/* ---- Engines ------------------------------------------------------------------------------------
 */

/* Makes an engine and starts its thread. `config` may be NULL for a runner of a library that brings
 * its own, such as mmcore_native_open. A runner serves one engine at a time; another one is
 * refused with MMCORE_INVALID_ARGUMENT. */
MMCORE_API mmcore_status mmcore_engine_create(const mmcore_config* config, mmcore_runner runner,
                                              mmcore_engine* engine);
/* Ends all requests as aborted, ends the thread, frees everything. Requests stay readable. Inside a
 * host function of this engine: MMCORE_WRONG_THREAD, and nothing happens. */
MMCORE_API mmcore_status mmcore_engine_destroy(mmcore_engine engine);

/* Hands a request in; waits for a place only (place_timeout_us). The handle is to be destroyed. */
MMCORE_API mmcore_status mmcore_engine_submit(mmcore_engine engine,
                                              const mmcore_submission* submission,
                                              mmcore_request* request);
/* Likewise, for a host that wants to be called, perhaps before this returns. `id` may be NULL. */
MMCORE_API mmcore_status mmcore_engine_submit_callback(mmcore_engine engine,
                                                       const mmcore_submission* submission,
                                                       mmcore_output_callback callback,
                                                       void* user_data, uint64_t* id);
/* Asks for the end of a request by its id; it still gives its last output. MMCORE_NOT_FOUND if it
 * has ended. */
MMCORE_API mmcore_status mmcore_engine_abort(mmcore_engine engine, uint64_t request_id);
/* Likewise for one sequence, which ends as stopped. */
MMCORE_API mmcore_status mmcore_engine_finish(mmcore_engine engine, uint64_t request_id,
                                              int32_t sequence);
/* Accepts nothing more, and waits until all has ended. */
MMCORE_API mmcore_status mmcore_engine_drain(mmcore_engine engine, int64_t timeout_us);
/* MMCORE_OK while requests are accepted, MMCORE_SHUTDOWN once it drains, MMCORE_INTERNAL when it
 * broke. */
MMCORE_API mmcore_status mmcore_engine_status(mmcore_engine engine);
/* Forgets cached prefixes and encoder outputs, unless requests run. */
MMCORE_API mmcore_status mmcore_engine_reset_caches(mmcore_engine engine);
/* Longest prompt and output that one sequence can have in the pool. */
MMCORE_API mmcore_status mmcore_engine_max_servable_tokens(mmcore_engine engine, int64_t* tokens);

/* EngineMetrics of mmcore/engine.h. */
typedef struct mmcore_metrics {
  uint32_t struct_size;
  uint32_t reserved0;
  int64_t num_waiting;
  int64_t waiting_tokens;
  int64_t num_running;
  int64_t blocks_total;
  int64_t blocks_used;
  int64_t blocks_cached;
  int64_t host_blocks_total;
  int64_t host_blocks_used;
  int64_t encoder_entries;
  int64_t encoder_entries_pinned;
  int64_t encoder_rows;
  uint64_t steps;
  uint64_t steps_failed;
  uint64_t requests_submitted;
  uint64_t requests_rejected;
  uint64_t requests_finished;
  uint64_t requests_aborted;
  uint64_t requests_failed;
  uint64_t requests_timed_out;
  uint64_t tokens_planned;
  uint64_t tokens_generated;
  uint64_t prefix_tokens_queried;
  uint64_t prefix_tokens_hit;
  uint64_t prefix_tokens_copied;
  uint64_t prefix_tokens_shared;
  uint64_t prefix_tokens_loaded;
  uint64_t tokens_forked;
  uint64_t blocks_evicted;
  uint64_t blocks_offloaded;
  uint64_t blocks_loaded;
  uint64_t host_blocks_evicted;
  uint64_t block_copies;
  uint64_t items_encoded;
  uint64_t items_skipped;
  uint64_t preemptions;
  uint64_t steps_ahead;
  uint64_t rows_surplus;
  uint64_t steps_slow;
  uint64_t slowest_step_us;
} mmcore_metrics;

/* `metrics->struct_size` says how much is wanted. */
MMCORE_API mmcore_status mmcore_engine_metrics(mmcore_engine engine, mmcore_metrics* metrics);

/* ---- Requests -----------------------------------------------------------------------------------
 */

/* Reads the next output, waiting for it at most `timeout_us` (on the engine's thread: not at all).
 * MMCORE_TIMEOUT if none came, MMCORE_END after the last one. Of several threads that read, each
 * output goes to one. */
MMCORE_API mmcore_status mmcore_request_read(mmcore_request request, int64_t timeout_us,
                                             mmcore_output* output);
/* Waits for the request's end, and gives what was not read as one output: all its tokens, with the
 * end's reason. Of a request for several sequences each call gives the next one. If the request
 * failed the status is its error, with finish_reason set; MMCORE_END when everything was given. On
 * MMCORE_TIMEOUT and MMCORE_BUFFER_TOO_SMALL nothing is lost: call again. On the engine's thread
 * MMCORE_WRONG_THREAD, unless it has ended. */
MMCORE_API mmcore_status mmcore_request_collect(mmcore_request request, int64_t timeout_us,
                                                mmcore_output* output);
MMCORE_API mmcore_status mmcore_request_id(mmcore_request request, uint64_t* id);
/* MMCORE_OK if it has ended. */
MMCORE_API mmcore_status mmcore_request_abort(mmcore_request request);
/* Aborts it if it has not ended. A thread that waits in mmcore_request_read gets
 * MMCORE_INVALID_HANDLE. */
MMCORE_API mmcore_status mmcore_request_destroy(mmcore_request request);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MMCORE_C_API_H */
