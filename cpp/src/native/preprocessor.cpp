#include <algorithm>
#include <array>
#include <charconv>

#include "mmcore/native.h"
#include "native/config_reader.h"
#include "native/resize.h"

namespace mmcore::native {

struct Preprocessor::Impl {
  bool resizes = true;
  int32_t shortest_edge = 0;  // 0: to resize_height x resize_width
  int32_t resize_height = 0, resize_width = 0;
  Filter filter = Filter::kBicubic;
  int32_t height = 0, width = 0;  // what comes out
  bool rescales = true;
  double rescale_factor = 1.0 / 255;
  bool normalizes = true;
  std::array<float, 3> mean{}, std{};

  Status read(const Json& json, const std::string& where);
};

namespace {

constexpr std::array<double, 3> kClipMean = {0.48145466, 0.4578275, 0.40821073};
constexpr std::array<double, 3> kClipStd = {0.26862954, 0.26130258, 0.27577711};
constexpr int64_t kMaxEdge = 8192;
constexpr int32_t kMaxSide = 1 << 24;

std::array<float, 3> read_triple(ConfigReader& reader, const char* key,
                                 const std::array<double, 3>& otherwise) {
  std::array<double, 3> values = otherwise;
  const Json& given = reader.at(key);
  if (given.is_number()) {
    values.fill(given.as_double());
  } else if (given.is_array() && given.as_array().size() == 3 &&
             std::ranges::all_of(given.as_array(), [](const Json& v) { return v.is_number(); })) {
    for (size_t i = 0; i < 3; ++i) values[i] = given.as_array()[i].as_double();
  } else if (!given.is_null()) {
    reader.fail(std::string(key) + " is no list of three numbers");
  }
  return {static_cast<float>(values[0]), static_cast<float>(values[1]),
          static_cast<float>(values[2])};
}

// {"height": h, "width": w} or a number for both.
void read_sides(ConfigReader& reader, const char* key, int32_t& height, int32_t& width) {
  if (reader.at(key).is_object()) {
    ConfigReader sides(reader.at(key), reader.where() + "." + key);
    height = sides.size("height", 0, 1, kMaxEdge);
    width = sides.size("width", 0, 1, kMaxEdge);
    if (!sides.status().ok()) reader.fail(sides.status().message());
  } else {
    height = width = reader.size(key, 0, 1, kMaxEdge);
  }
}

}  // namespace

Status Preprocessor::Impl::read(const Json& json, const std::string& where) {
  ConfigReader reader(json, where);
  const std::string type = reader.text("image_processor_type",
                                       reader.text("feature_extractor_type", "CLIPImageProcessor"));
  const bool known = type == "CLIPImageProcessor" || type == "CLIPImageProcessorFast" ||
                     type == "CLIPImageProcessorPil" || type == "CLIPFeatureExtractor";
  if (!known)
    return Status::unsupported(where + ": image processor '" + type +
                               "' is not supported; known: CLIPImageProcessor");
  if (reader.flag("do_pad", false)) reader.fail("do_pad is not supported");
  resizes = reader.flag("do_resize", true);
  const Json& size = reader.at("size");
  if (size.is_null() || size.is_int()) {
    shortest_edge = reader.size("size", 224, 1, kMaxEdge);
  } else if (!size["shortest_edge"].is_null() && size.as_object().size() == 1) {
    ConfigReader edge(size, where + ".size");
    shortest_edge = edge.size("shortest_edge", 224, 1, kMaxEdge);
    if (!edge.status().ok()) reader.fail(edge.status().message());
  } else {
    read_sides(reader, "size", resize_height, resize_width);
    if (resize_height == 0 || resize_width == 0)
      reader.fail("size is neither a shortest_edge nor a height and a width");
  }
  const int32_t resample = reader.size("resample", 3, 0, 5);
  if (resample != 2 && resample != 3)
    reader.fail("resample " + std::to_string(resample) +
                " is not supported; known: 2 (bilinear), 3 (bicubic)");
  filter = static_cast<Filter>(resample);
  if (reader.flag("do_center_crop", true)) {
    height = width = 224;
    if (reader.has("crop_size")) read_sides(reader, "crop_size", height, width);
    if (height == 0 || width == 0) reader.fail("crop_size has no height and width");
  } else if (resizes && shortest_edge == 0) {
    height = resize_height;
    width = resize_width;
  } else {
    reader.fail("without a crop, pictures come out in sizes of their own");
  }
  rescales = reader.flag("do_rescale", true);
  rescale_factor = reader.number_of("rescale_factor", 1.0 / 255);
  normalizes = reader.flag("do_normalize", true);
  mean = read_triple(reader, "image_mean", kClipMean);
  std = read_triple(reader, "image_std", kClipStd);
  if (std::ranges::any_of(std, [](float value) { return !(value > 0); }))
    reader.fail("image_std must be above 0");
  return reader.status();
}

Preprocessor::Preprocessor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Preprocessor::~Preprocessor() = default;

Result<std::unique_ptr<Preprocessor>> Preprocessor::load(const std::string& folder) {
  auto impl = std::make_unique<Impl>();
  const std::string own = "preprocessor_config.json", whole = "processor_config.json";
  Result<Json> config = read_config(folder, own);
  if (config.ok()) {
    MMCORE_RETURN_IF_ERROR(impl->read(config.value(), own));
  } else if (config.status().code() != StatusCode::kNotFound) {
    return config.status();
  } else {
    const Result<Json> processor = read_config(folder, whole);
    if (!processor.ok() || !processor.value()["image_processor"].is_object())
      return Status(StatusCode::kNotFound, "no image processor: there is neither " + own +
                                               " nor an image_processor in " + whole);
    MMCORE_RETURN_IF_ERROR(impl->read(processor.value()["image_processor"], whole));
  }
  return std::unique_ptr<Preprocessor>(new Preprocessor(std::move(impl)));
}

int32_t Preprocessor::width() const { return impl_->width; }
int32_t Preprocessor::height() const { return impl_->height; }

Result<std::vector<uint8_t>> Preprocessor::crop(const ImageView& image) const {
  const Impl& c = *impl_;
  if (image.rgb == nullptr || image.width < 1 || image.height < 1 || image.width > kMaxSide ||
      image.height > kMaxSide) {
    return Status(StatusCode::kMediaError, "an image of " + std::to_string(image.width) + " x " +
                                               std::to_string(image.height) + " pixels" +
                                               (image.rgb == nullptr ? " without data" : "") +
                                               "; expected data, and sides from 1 to " +
                                               std::to_string(kMaxSide));
  }
  ResizedWindow window = {
      .width = image.width, .height = image.height, .columns = c.width, .rows = c.height};
  if (c.resizes && c.shortest_edge == 0) {
    window.width = c.resize_width;
    window.height = c.resize_height;
  } else if (c.resizes) {
    const int64_t shorter = std::min(image.width, image.height);
    const int64_t longer = std::max(image.width, image.height);
    const auto stretched = static_cast<int64_t>(static_cast<double>(c.shortest_edge * longer) /
                                                static_cast<double>(shorter));
    window.width = image.width <= image.height ? c.shortest_edge : stretched;
    window.height = image.width <= image.height ? stretched : c.shortest_edge;
  }
  // Rounded down, also below 0.
  window.left = (window.width - c.width) >> 1;
  window.top = (window.height - c.height) >> 1;
  return resize(image, c.filter, window);
}

Result<std::vector<float>> Preprocessor::normalize(std::span<const uint8_t> crop) const {
  const Impl& c = *impl_;
  const size_t pixels = static_cast<size_t>(c.width) * static_cast<size_t>(c.height);
  if (crop.size() != 3 * pixels)
    return Status::invalid_argument("a crop of " + std::to_string(crop.size()) +
                                    " bytes, expected " + std::to_string(3 * pixels));
  std::vector<float> out(3 * pixels);
  for (size_t channel = 0; channel < 3; ++channel) {
    std::array<float, 256> values;  // a byte's
    for (size_t byte = 0; byte < values.size(); ++byte) {
      const auto raw = static_cast<double>(byte);
      auto value = static_cast<float>(c.rescales ? raw * c.rescale_factor : raw);
      if (c.normalizes) value = (value - c.mean[channel]) / c.std[channel];
      values[byte] = value;
    }
    for (size_t i = 0; i < pixels; ++i) out[channel * pixels + i] = values[crop[3 * i + channel]];
  }
  return out;
}

Result<std::vector<float>> Preprocessor::operator()(const ImageView& image) const {
  const Result<std::vector<uint8_t>> cropped = crop(image);
  if (!cropped.ok()) return cropped.status();
  return normalize(cropped.value());
}

std::string Preprocessor::description() const {
  const Impl& c = *impl_;
  std::string text = "clip";
  const auto add = [&](double value) {  // all of its bits
    std::array<char, 40> digits;
    const auto end =
        std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::hex)
            .ptr;
    text += ' ' + std::string(digits.data(), end);
  };
  for (const int32_t value : {c.shortest_edge, c.resize_height, c.resize_width,
                              static_cast<int32_t>(c.filter), c.height, c.width})
    add(value);
  add(c.rescales ? c.rescale_factor : 1);
  for (size_t i = 0; i < 3; ++i) {
    add(c.normalizes ? double{c.mean[i]} : 0);
    add(c.normalizes ? double{c.std[i]} : 1);
  }
  return text;
}

}  // namespace mmcore::native
