/* Captions a picture: mmcore_caption CHECKPOINT PICTURE.ppm
 * The token ids go to standard output, the text to standard error. */
#include <mmcore/c_api.h>
#include <mmcore/native_c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void need(mmcore_status status) {
  if (status == MMCORE_OK) return;
  fprintf(stderr, "%s: %s\n", mmcore_status_name(status), mmcore_last_error());
  exit(1);
}

/* A binary PPM without comments: "P6 width height 255" and the pixels. */
static uint8_t* read_ppm(const char* path, mmcore_native_image* image) {
  FILE* file = fopen(path, "rb");
  if (!file || fscanf(file, "P6 %d %d 255", &image->width, &image->height) != 2 ||
      image->width < 1 || image->height < 1 || image->width > 8192 || image->height > 8192)
    return NULL;
  fgetc(file);
  const size_t size = (size_t)3 * (size_t)image->width * (size_t)image->height;
  uint8_t* rgb = malloc(size);
  if (rgb && fread(rgb, 1, size, file) != size) return NULL;
  fclose(file);
  return rgb;
}

int main(int argc, char** argv) {
  mmcore_native_image image;
  if (argc != 3 || !(image.rgb = read_ppm(argv[2], &image)))
    return fprintf(stderr, "usage: %s CHECKPOINT PICTURE.ppm\n", argv[0]), 2;

  mmcore_native_options options;
  mmcore_runner runner;
  need(mmcore_native_options_init(&options, sizeof options));
  options.dtype = MMCORE_NATIVE_FLOAT32;
  need(mmcore_native_open(argv[1], &options, &runner));
  mmcore_config config;
  mmcore_engine engine;
  need(mmcore_config_init(&config, sizeof config));
  need(mmcore_native_configure(runner, &config));
  need(mmcore_engine_create(&config, runner, &engine));

  const char* text = "USER: <image>\nDescribe the image. ASSISTANT:";
  int32_t ids[64], prompt[4096];
  int64_t num_ids, num_prompt;
  mmcore_media_item item;
  need(mmcore_native_encode(runner, text, (int64_t)strlen(text), 0, ids, 64, &num_ids));
  need(mmcore_native_prepare(runner, ids, num_ids, &image, 1, prompt, 4096, &num_prompt, &item,
                             sizeof item));

  mmcore_sampling sampling;
  mmcore_submission submission;
  mmcore_request request;
  need(mmcore_sampling_init(&sampling, sizeof sampling));
  sampling.temperature = 0;
  sampling.max_tokens = 64;
  need(mmcore_submission_init(&submission, sizeof submission));
  submission.prompt_token_ids = prompt;
  submission.num_prompt_token_ids = num_prompt;
  submission.media = &item;
  submission.num_media = 1;
  submission.sampling = &sampling;
  need(mmcore_engine_submit(engine, &submission, &request));
  need(mmcore_payload_destroy(item.payload));

  int32_t answer[64];
  int64_t length = 0, bytes = 0;
  mmcore_status status;
  mmcore_output output;
  memset(&output, 0, sizeof output);
  output.struct_size = sizeof output;
  do {
    output.tokens = answer + length;
    output.tokens_capacity = 64 - length;
    status = mmcore_request_read(request, -1, &output);
    if (status == MMCORE_OK) length += output.num_tokens;
  } while (status == MMCORE_OK);
  if (status != MMCORE_END) need(status);
  if (output.finish_reason == MMCORE_FINISH_ERROR) return 1;

  char caption[2048];
  need(mmcore_native_decode(runner, answer, length, 0, caption, sizeof caption, &bytes));
  for (int64_t i = 0; i < length; ++i) printf(i ? " %d" : "%d", answer[i]);
  printf("\n");
  fprintf(stderr, "%s\n", caption);
  need(mmcore_request_destroy(request));
  need(mmcore_engine_destroy(engine));
  need(mmcore_runner_destroy(runner));
  free((void*)image.rgb);
  return 0;
}
