// mmcore_native_submit: the functions of native_c.h and c_api.h that take a text to an engine.
#include <cstring>
#include <string>
#include <vector>

#include "c_api/sized_struct.h"
#include "mmcore/c_api_cpp.h"
#include "mmcore/native_c.h"

namespace {

using namespace mmcore;
using c_api::report;

/// Destroys what mmcore_native_prepare gave; a request that was submitted keeps it.
class Items {
 public:
  explicit Items(int64_t count) : items_(static_cast<size_t>(count)) {}
  ~Items() {
    for (const mmcore_media_item& item : items_)
      if (item.payload != 0) mmcore_payload_destroy(item.payload);
  }
  Items(const Items&) = delete;
  Items& operator=(const Items&) = delete;

  mmcore_media_item* data() { return items_.data(); }

 private:
  std::vector<mmcore_media_item> items_;
};

Status check(const char* text, const mmcore_native_image* images, int64_t num_images,
             const mmcore_submission* submission, const mmcore_request* request,
             mmcore_submission& rest) {
  constexpr int64_t kMostImages = 1 << 20;
  if (request == nullptr) return Status::invalid_argument("request must not be NULL.");
  if (text == nullptr) return Status::invalid_argument("text must not be NULL.");
  if (num_images < 0 || num_images > kMostImages || (images == nullptr && num_images > 0))
    return Status::invalid_argument("images is NULL, or num_images is " +
                                    std::to_string(num_images) + ".");
  if (submission != nullptr)
    MMCORE_RETURN_IF_ERROR(c_api::read_struct("mmcore_submission", submission, rest));
  if (rest.num_prompt_token_ids != 0 || rest.num_media != 0)
    return Status::invalid_argument(
        "The submission has a prompt or media of its own; use mmcore_engine_submit, or leave them "
        "empty.");
  return {};
}

}  // namespace

mmcore_status mmcore_native_submit(mmcore_engine engine, mmcore_runner runner, const char* text,
                                   const mmcore_native_image* images, int64_t num_images,
                                   const mmcore_submission* submission, mmcore_request* request) {
  return c_api::guarded([&]() -> mmcore_status {
    if (request != nullptr) *request = 0;
    mmcore_submission whole;
    mmcore_status status = mmcore_submission_init(&whole, sizeof(whole));
    if (status != MMCORE_OK) return status;
    const Status valid = check(text, images, num_images, submission, request, whole);
    if (!valid.ok()) return report(valid);

    const auto length = static_cast<int64_t>(std::strlen(text));
    std::vector<int32_t> ids(static_cast<size_t>(length) + 16);
    const auto room = [](const std::vector<int32_t>& v) { return static_cast<int64_t>(v.size()); };
    int64_t num_ids = 0;
    const auto encode = [&] {
      return mmcore_native_encode(runner, text, length, 0, ids.data(), room(ids), &num_ids);
    };
    if (status = encode(); status == MMCORE_BUFFER_TOO_SMALL) {
      ids.resize(static_cast<size_t>(num_ids));
      status = encode();
    }
    if (status != MMCORE_OK) return status;

    std::vector<int32_t> prompt(static_cast<size_t>(num_ids));
    int64_t num_prompt = 0;
    Items items(num_images);
    const auto prepare = [&] {
      return mmcore_native_prepare(runner, ids.data(), num_ids, images, num_images, prompt.data(),
                                   room(prompt), &num_prompt, items.data(),
                                   sizeof(mmcore_media_item));
    };
    if (status = prepare(); status == MMCORE_BUFFER_TOO_SMALL) {
      prompt.resize(static_cast<size_t>(num_prompt));
      status = prepare();
    }
    if (status != MMCORE_OK) return status;

    whole.prompt_token_ids = prompt.data();
    whole.num_prompt_token_ids = num_prompt;
    whole.media = items.data();
    whole.num_media = num_images;
    return mmcore_engine_submit(engine, &whole, request);
  });
}
