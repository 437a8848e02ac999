// Structs of callers that are older or newer than the library.
#include "c_api/sized_struct.h"

#include <cstddef>
#include <cstring>

#include "c_api/c_world.h"

namespace mmcore::testing {
namespace {

struct Later {  // of a caller that knows one field more
  mmcore_sampling now;
  int64_t more;
};

TEST(SizedStruct, InitSetsTheSizeThatTheCallerKnows) {
  Later later;
  std::memset(&later, 0x7f, sizeof(later));
  ASSERT_EQ(mmcore_sampling_init(&later.now, sizeof(later)), MMCORE_OK);
  EXPECT_EQ(later.now.struct_size, sizeof(later));
  EXPECT_EQ(later.more, 0) << "what the library does not know is off";
  EXPECT_EQ(later.now.max_tokens, 16);

  mmcore_sampling sampling;
  std::memset(&sampling, 0x7f, sizeof(sampling));
  const uint32_t older = offsetof(mmcore_sampling, seed);
  ASSERT_EQ(mmcore_sampling_init(&sampling, older), MMCORE_OK);
  EXPECT_EQ(sampling.struct_size, older);
  EXPECT_FLOAT_EQ(sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(sampling.max_tokens, 0x7f7f7f7f) << "memory that is not the caller's struct";
}

TEST(SizedStruct, SizesThatNobodyHas) {
  mmcore_config config;
  for (const uint32_t size : {0u, 4u, 7u, 4097u, ~0u}) {
    EXPECT_EQ(mmcore_config_init(&config, size), MMCORE_INVALID_ARGUMENT) << size;
    EXPECT_NE(std::string(mmcore_last_error()).find("sizeof(mmcore_config)"), std::string::npos);
  }
}

// Every function that reads or fills a struct, with sizes that it cannot have.
TEST_F(CApiTest, WrongStructSizesEverywhere) {
  open();
  const mmcore_request request = submit(CRequest(5, 10));
  mmcore_config config = small_c_config();
  mmcore_runner_functions functions = host.functions();
  CRequest content(5, 10);
  mmcore_media_item item{};
  item.length = 1;
  mmcore_metrics metrics{};
  mmcore_output output{};
  for (const uint32_t size : {0u, 4u, 7u, 4097u, ~0u}) {
    mmcore_engine made = 0;
    mmcore_runner other = 0;
    mmcore_request refused = 0;
    const auto submitted = [&] {
      return mmcore_engine_submit(engine, &content.submission, &refused);
    };
    config.struct_size = functions.struct_size = metrics.struct_size = output.struct_size = size;
    EXPECT_EQ(mmcore_engine_create(&config, runner, &made), MMCORE_INVALID_ARGUMENT) << size;
    EXPECT_EQ(mmcore_runner_create(&functions, &host, &other), MMCORE_INVALID_ARGUMENT) << size;
    EXPECT_EQ(mmcore_engine_metrics(engine, &metrics), MMCORE_INVALID_ARGUMENT) << size;
    EXPECT_EQ(mmcore_request_read(request, kLongUs, &output), MMCORE_INVALID_ARGUMENT) << size;
    content.submission.struct_size = size;
    EXPECT_EQ(submitted(), MMCORE_INVALID_ARGUMENT) << size;
    content.submission.struct_size = sizeof(content.submission);
    content.sampling.struct_size = size;
    EXPECT_EQ(submitted(), MMCORE_INVALID_ARGUMENT) << size;
    content.sampling.struct_size = sizeof(content.sampling);
    item.struct_size = size;
    content.submission.media = &item;
    content.submission.num_media = 1;
    EXPECT_EQ(submitted(), MMCORE_INVALID_ARGUMENT) << size;
    content.submission.num_media = 0;
    EXPECT_EQ(mmcore_sampling_init(&content.sampling, size), MMCORE_INVALID_ARGUMENT) << size;
    EXPECT_EQ(mmcore_submission_init(&content.submission, size), MMCORE_INVALID_ARGUMENT) << size;
    EXPECT_EQ(made + other + refused, 0u) << size;
  }
  EXPECT_EQ(read_all(request).tokens, counted_after(14, 8)) << "it was not harmed";
  mmcore_request_destroy(request);
}

TEST_F(CApiTest, OlderCallersGetDefaults) {
  open();
  CRequest content(5, 10);
  content.sampling.max_tokens = 3;
  content.sampling.struct_size = offsetof(mmcore_sampling, max_tokens);  // knows nothing of it
  mmcore_request request = submit(content);
  EXPECT_EQ(read_all(request).tokens, counted_after(14, 16)) << "the default of max_tokens";
  mmcore_request_destroy(request);

  content.submission.struct_size = offsetof(mmcore_submission, num_sequences);
  content.submission.num_sequences = 77;
  request = submit(content);
  EXPECT_EQ(read_all(request).last_read, MMCORE_END);
  mmcore_request_destroy(request);

  mmcore_metrics metrics;
  std::memset(&metrics, 0x7f, sizeof(metrics));
  metrics.struct_size = offsetof(mmcore_metrics, num_running);
  ASSERT_EQ(mmcore_engine_metrics(engine, &metrics), MMCORE_OK);
  EXPECT_EQ(metrics.num_waiting, 0);
  EXPECT_EQ(metrics.num_running, 0x7f7f7f7f7f7f7f7f);
}

TEST_F(CApiTest, NewerCallersAreServedUntilTheyUseWhatIsNew) {
  open();
  CRequest content(5, 10);
  Later later{};
  ASSERT_EQ(mmcore_sampling_init(&later.now, sizeof(later)), MMCORE_OK);
  later.now.max_tokens = 2;
  content.submission.sampling = &later.now;
  const mmcore_request request = submit(content);
  EXPECT_EQ(read_all(request).tokens, counted_after(14, 2));
  mmcore_request_destroy(request);
  later.more = 1;
  mmcore_request refused = 0;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &refused), MMCORE_UNSUPPORTED);
}

TEST_F(CApiTest, ItemsAreAsFarApartAsTheirSize) {
  struct LaterItem {
    mmcore_media_item now;
    int64_t more;
  };
  std::vector<int32_t> offsets;
  host.on_accept = [&](uint64_t, const mmcore_submission* content) -> mmcore_status {
    for (int64_t i = 0; i < content->num_media; ++i) offsets.push_back(content->media[i].offset);
    return MMCORE_OK;
  };
  open();
  LaterItem items[2]{};
  for (int i = 0; i < 2; ++i) {
    items[i].now.struct_size = sizeof(LaterItem);
    items[i].now.offset = 2 * i;
    items[i].now.length = 1;
  }
  CRequest content(5, 10, 1);
  content.submission.media = &items[0].now;
  content.submission.num_media = 2;
  const mmcore_request request = submit(content);
  EXPECT_EQ(read_all(request).finish_reason, MMCORE_FINISH_LENGTH);
  EXPECT_EQ(offsets, std::vector<int32_t>({0, 2}));
  mmcore_request_destroy(request);
  items[1].now.struct_size = sizeof(mmcore_media_item);
  mmcore_request refused = 0;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &refused), MMCORE_INVALID_ARGUMENT);
}

TEST_F(CApiTest, RefusesMisalignedPointers) {
  open();
  alignas(8) unsigned char bytes[sizeof(mmcore_config) + 8] = {};
  mmcore_engine made = 0;
  const auto* config = reinterpret_cast<const mmcore_config*>(bytes + 1);
  EXPECT_EQ(mmcore_engine_create(config, runner, &made), MMCORE_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace mmcore::testing
