#include "picture.h"

#include <jpeglib.h>
#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>

namespace service {
namespace {

using mmcore::Result;
using mmcore::Status;
using mmcore::StatusCode;

Status media_error(std::string what) { return {StatusCode::kMediaError, std::move(what)}; }

Status check_size(int64_t width, int64_t height, const PictureLimits& limits) {
  if (width >= 1 && height >= 1 && width <= limits.max_pixels / height) return {};
  return media_error("the picture has " + std::to_string(width) + " x " + std::to_string(height) +
                     " pixels; at most " + std::to_string(limits.max_pixels) + " are allowed");
}

uint8_t on_white(uint8_t colour, uint8_t alpha) {
  return static_cast<uint8_t>((colour * alpha + 255 * (255 - alpha) + 127) / 255);
}

Result<Picture> decode_png(std::span<const uint8_t> file, const PictureLimits& limits) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  struct Free {
    png_image* image;
    ~Free() { png_image_free(image); }
  } free{&image};
  if (!png_image_begin_read_from_memory(&image, file.data(), file.size()))
    return media_error(std::string("this is no usable PNG: ") + image.message);
  const Status size = check_size(image.width, image.height, limits);
  if (!size.ok()) return size;
  image.format = PNG_FORMAT_RGBA;
  std::vector<uint8_t> rgba(PNG_IMAGE_SIZE(image));
  if (!png_image_finish_read(&image, nullptr, rgba.data(), 0, nullptr))
    return media_error(std::string("this PNG is broken: ") + image.message);
  Picture picture;
  picture.width = static_cast<int32_t>(image.width);
  picture.height = static_cast<int32_t>(image.height);
  picture.rgb.resize(rgba.size() / 4 * 3);
  for (size_t i = 0; i < rgba.size() / 4; ++i)
    for (size_t c = 0; c < 3; ++c)
      picture.rgb[3 * i + c] = on_white(rgba[4 * i + c], rgba[4 * i + 3]);
  return picture;
}

struct JpegErrors {
  jpeg_error_mgr base;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

void leave(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  errors->base.format_message(info, errors->message);
  std::longjmp(errors->jump, 1);
}

// libjpeg warns where data is missing and goes on with gray: not a picture to answer about.
void refuse_warnings(j_common_ptr info, int level) {
  if (level < 0) leave(info);
}

// libjpeg reports errors by longjmp, which must not pass over an object with a destructor: the
// picture and the message belong to the caller.
bool read_jpeg(std::span<const uint8_t> file, const PictureLimits& limits, JpegErrors& errors,
               Picture& picture, Status& size) {
  jpeg_decompress_struct info;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = leave;
  errors.base.emit_message = refuse_warnings;
  if (setjmp(errors.jump)) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, file.data(), static_cast<unsigned long>(file.size()));
  jpeg_read_header(&info, TRUE);
  size = check_size(info.image_width, info.image_height, limits);
  if (size.ok()) {
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    picture.width = static_cast<int32_t>(info.output_width);
    picture.height = static_cast<int32_t>(info.output_height);
    picture.rgb.resize(size_t{3} * info.output_width * info.output_height);
    while (info.output_scanline < info.output_height) {
      JSAMPROW row = picture.rgb.data() + size_t{3} * info.output_width * info.output_scanline;
      jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
  }
  jpeg_destroy_decompress(&info);
  return true;
}

Result<Picture> decode_jpeg(std::span<const uint8_t> file, const PictureLimits& limits) {
  Picture picture;
  JpegErrors errors{};
  Status size;
  if (!read_jpeg(file, limits, errors, picture, size))
    return media_error(std::string("this JPEG is broken: ") + errors.message);
  if (!size.ok()) return size;
  return picture;
}

bool starts_with(std::span<const uint8_t> file, std::span<const uint8_t> magic) {
  return file.size() >= magic.size() && std::memcmp(file.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

Result<Picture> decode_picture(std::span<const uint8_t> file, const PictureLimits& limits) {
  constexpr uint8_t kPng[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  constexpr uint8_t kJpeg[] = {0xFF, 0xD8, 0xFF};
  if (file.size() > limits.max_bytes)
    return media_error("the picture's file has " + std::to_string(file.size()) +
                       " bytes; at most " + std::to_string(limits.max_bytes) + " are allowed");
  if (starts_with(file, kPng)) return decode_png(file, limits);
  if (starts_with(file, kJpeg)) return decode_jpeg(file, limits);
  return media_error("the picture is neither a PNG nor a JPEG file");
}

}  // namespace service
