/* Serves requests with a runner that counts: the C API without any model. */
#include <stdio.h>
#include <string.h>

#include "mmcore/c_api.h"

enum { VOCAB_SIZE = 1000, MAX_TOKENS = 4, NUM_REQUESTS = 3 };

/* What the host's runner knows; the engine calls it on its own thread, one step at a time. */
typedef struct Host {
  int steps;
  int held; /* requests that were accepted and not released */
} Host;

static mmcore_status execute(void* context, const mmcore_step* step, mmcore_step_result* result) {
  Host* host = context;
  ++host->steps;
  for (int64_t i = 0; i < step->num_sample_rows; ++i)
    result->tokens[i] = (step->token_ids[step->sample_rows[i]] + 1) % VOCAB_SIZE;
  return MMCORE_OK;
}

static mmcore_status accept_request(void* context, uint64_t request,
                                    const mmcore_submission* submission) {
  Host* host = context;
  (void)request;
  ++host->held;
  return submission->num_prompt_token_ids > 0 ? MMCORE_OK : MMCORE_INVALID_ARGUMENT;
}

static void release(void* context, uint64_t request) {
  Host* host = context;
  (void)request;
  --host->held;
}

static int failed(mmcore_status status, const char* what) {
  if (status == MMCORE_OK) return 0;
  fprintf(stderr, "embed_c: %s gave %s: %s\n", what, mmcore_status_name(status),
          mmcore_last_error());
  return 1;
}

/* Reads one request to its end; 0 if it gave last + 1, last + 2, ... */
static int read_request(mmcore_request request, int32_t last) {
  int32_t tokens[MAX_TOKENS];
  int32_t num_tokens = 0;
  mmcore_output output;
  mmcore_status status = MMCORE_OK;
  memset(&output, 0, sizeof(output));
  output.struct_size = sizeof(output);
  do {
    output.tokens = tokens + num_tokens;
    output.tokens_capacity = MAX_TOKENS - num_tokens;
    status = mmcore_request_read(request, -1, &output);
    if (status == MMCORE_OK) num_tokens += (int32_t)output.num_tokens;
  } while (status == MMCORE_OK);
  if (status != MMCORE_END) return failed(status, "mmcore_request_read");
  if (num_tokens != MAX_TOKENS || output.finish_reason != MMCORE_FINISH_LENGTH) return 1;
  for (int32_t i = 0; i < MAX_TOKENS; ++i)
    if (tokens[i] != last + 1 + i) return 1;
  return 0;
}

static int serve(mmcore_engine engine) {
  mmcore_request requests[NUM_REQUESTS];
  mmcore_sampling sampling;
  mmcore_submission submission;
  int bad = 0;
  if (failed(mmcore_sampling_init(&sampling, sizeof(sampling)), "mmcore_sampling_init")) return 1;
  if (failed(mmcore_submission_init(&submission, sizeof(submission)), "mmcore_submission_init"))
    return 1;
  sampling.temperature = 0.0f;
  sampling.max_tokens = MAX_TOKENS;
  submission.sampling = &sampling;
  for (int32_t i = 0; i < NUM_REQUESTS; ++i) {
    const int32_t prompt[] = {5, 6, 10 * i};
    submission.prompt_token_ids = prompt;
    submission.num_prompt_token_ids = 3;
    if (failed(mmcore_engine_submit(engine, &submission, &requests[i]), "mmcore_engine_submit"))
      return 1;
  }
  for (int32_t i = 0; i < NUM_REQUESTS; ++i) {
    bad |= read_request(requests[i], 10 * i);
    bad |= failed(mmcore_request_destroy(requests[i]), "mmcore_request_destroy");
  }
  return bad;
}

int main(void) {
  Host host = {0, 0};
  mmcore_runner_functions functions;
  mmcore_runner runner = 0;
  mmcore_config config;
  mmcore_engine engine = 0;
  mmcore_metrics metrics;
  int bad = 0;

  memset(&functions, 0, sizeof(functions));
  functions.struct_size = sizeof(functions);
  functions.execute = execute;
  functions.accept = accept_request;
  functions.release = release;
  if (failed(mmcore_runner_create(&functions, &host, &runner), "mmcore_runner_create")) return 1;

  if (failed(mmcore_config_init(&config, sizeof(config)), "mmcore_config_init")) return 1;
  config.num_blocks = 64;
  config.max_model_len = 128;
  config.vocab_size = VOCAB_SIZE;
  if (failed(mmcore_engine_create(&config, runner, &engine), "mmcore_engine_create")) return 1;

  bad |= serve(engine);
  bad |= failed(mmcore_engine_drain(engine, -1), "mmcore_engine_drain");
  memset(&metrics, 0, sizeof(metrics));
  metrics.struct_size = sizeof(metrics);
  bad |= failed(mmcore_engine_metrics(engine, &metrics), "mmcore_engine_metrics");
  bad |= metrics.requests_finished != NUM_REQUESTS || metrics.blocks_used != 0;

  bad |= failed(mmcore_engine_destroy(engine), "mmcore_engine_destroy");
  bad |= failed(mmcore_runner_destroy(runner), "mmcore_runner_destroy");
  bad |= mmcore_engine_destroy(engine) != MMCORE_INVALID_HANDLE; /* a second time */
  bad |= host.steps == 0 || host.held != 0;
  printf("embed_c: mmcore %s, %s\n", mmcore_version(), bad ? "failed" : "ok");
  return bad;
}
