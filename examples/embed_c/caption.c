/* Captions a picture: mmcore_caption CHECKPOINT WIDTH HEIGHT < PIXELS, which are rows of R, G, B.
 * The token ids go to standard output, the text to standard error. */
#include <mmcore/native_c.h>
#include <stdio.h>
#include <stdlib.h>

static void need(mmcore_status status) {
  if (status == MMCORE_OK) return;
  fprintf(stderr, "%s: %s\n", mmcore_status_name(status), mmcore_last_error());
  exit(1);
}

int main(int argc, char** argv) {
  static uint8_t rgb[3 * 4096 * 4096];
  const mmcore_native_image image = {rgb, argc == 4 ? atoi(argv[2]) : 0,
                                     argc == 4 ? atoi(argv[3]) : 0};
  const size_t row = 3 * (size_t)image.width;
  if (image.width < 1 || image.width > 4096 || image.height < 1 || image.height > 4096 ||
      fread(rgb, row, (size_t)image.height, stdin) != (size_t)image.height)
    return fprintf(stderr, "usage: %s CHECKPOINT WIDTH HEIGHT < PIXELS\n", argv[0]), 2;

  mmcore_runner runner;
  mmcore_engine engine;
  mmcore_request request;
  need(mmcore_native_open(argv[1], NULL, &runner));
  need(mmcore_engine_create(NULL, runner, &engine));

  mmcore_sampling sampling;
  mmcore_submission submission;
  need(mmcore_sampling_init(&sampling, sizeof sampling));
  need(mmcore_submission_init(&submission, sizeof submission));
  sampling.temperature = 0;
  sampling.max_tokens = 64;
  submission.sampling = &sampling;
  const char* prompt = "USER: <image>\nDescribe the image. ASSISTANT:";
  need(mmcore_native_submit(engine, runner, prompt, &image, 1, &submission, &request));

  int32_t ids[64];
  char caption[2048];
  int64_t length;
  mmcore_output output = {.struct_size = sizeof output, .tokens = ids, .tokens_capacity = 64};
  need(mmcore_request_collect(request, -1, &output));
  need(mmcore_native_decode(runner, ids, output.num_tokens, 0, caption, sizeof caption, &length));
  for (int64_t i = 0; i < output.num_tokens; ++i) printf(i ? " %d" : "%d", ids[i]);
  printf("\n");
  fprintf(stderr, "%s\n", caption);

  need(mmcore_request_destroy(request));
  need(mmcore_engine_destroy(engine));
  need(mmcore_runner_destroy(runner));
  return 0;
}
