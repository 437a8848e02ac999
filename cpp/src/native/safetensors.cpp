#include "native/safetensors.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "native/json.h"

namespace mmcore::native {

namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // as the format's own reader has it
constexpr int64_t kMaxElements = int64_t{1} << 48;

struct KnownType {
  std::string_view name;
  int64_t bytes;
};
constexpr std::array<KnownType, 15> kTypes = {{{"BOOL", 1},
                                               {"U8", 1},
                                               {"I8", 1},
                                               {"F8_E4M3", 1},
                                               {"F8_E5M2", 1},
                                               {"U16", 2},
                                               {"I16", 2},
                                               {"F16", 2},
                                               {"BF16", 2},
                                               {"U32", 4},
                                               {"I32", 4},
                                               {"F32", 4},
                                               {"U64", 8},
                                               {"I64", 8},
                                               {"F64", 8}}};

// The number of elements, or -1 for a shape that is none.
int64_t elements_of(const Json& shape, std::vector<int64_t>& sizes) {
  if (!shape.is_array()) return -1;
  int64_t count = 1;
  for (const Json& size : shape.as_array()) {
    if (!size.is_int() || size.as_int() < 0) return -1;
    if (size.as_int() != 0 && count > kMaxElements / size.as_int()) return -1;
    count *= size.as_int();
    sizes.push_back(size.as_int());
  }
  return count;
}

Status bad_tensor(const std::string& name, const std::string& what) {
  return Status::invalid_argument("tensor '" + name + "': " + what);
}

struct Extent {
  int64_t begin, end;
  std::string_view name;
};

}  // namespace

std::string describe(const StoredTensor& tensor) {
  std::string text = tensor.dtype + " [";
  for (size_t i = 0; i < tensor.shape.size(); ++i)
    text += (i != 0 ? ", " : "") + std::to_string(tensor.shape[i]);
  return text + "]";
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file.ok()) return file.status();
  SafetensorsFile opened(std::move(file).value());
  const Status status = opened.read_header();
  if (!status.ok()) return Status(status.code(), file_name(path) + ": " + status.message());
  return opened;
}

Status SafetensorsFile::read_header() {
  const std::span<const uint8_t> bytes = file_.bytes();
  if (bytes.size() < 8)
    return Status::invalid_argument("no safetensors file: it is shorter than 8 bytes");
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= uint64_t{bytes[i]} << (8 * i);
  if (length > kMaxHeader || length > bytes.size() - 8) {
    return Status::invalid_argument("no safetensors file, or one that is cut off: a header of " +
                                    std::to_string(length) + " bytes in a file of " +
                                    std::to_string(bytes.size()) + " bytes");
  }
  const auto header_bytes = static_cast<size_t>(length);
  const Result<Json> header = Json::parse(file_.text().substr(8, header_bytes));
  if (!header.ok()) return Status::invalid_argument("its header is " + header.status().message());
  if (!header.value().is_object())
    return Status::invalid_argument("its header is " + std::string(header.value().kind()) +
                                    ", expected an object");
  const auto data_bytes = static_cast<int64_t>(bytes.size() - 8 - header_bytes);
  std::vector<Extent> extents;
  for (const auto& [name, entry] : header.value().as_object()) {
    if (name == "__metadata__") continue;
    StoredTensor tensor;
    const Json& dtype = entry["dtype"];
    const auto type = std::ranges::find_if(kTypes, [&](const KnownType& known) {
      return dtype.is_string() && dtype.as_string() == known.name;
    });
    if (type == kTypes.end())
      return bad_tensor(name, dtype.is_string() ? "unknown dtype '" + dtype.as_string() + "'"
                                                : "its dtype is no string");
    tensor.dtype = dtype.as_string();
    const int64_t count = elements_of(entry["shape"], tensor.shape);
    if (count < 0) return bad_tensor(name, "its shape is no list of sizes");
    const Json& offsets = entry["data_offsets"];
    if (!offsets.is_array() || offsets.as_array().size() != 2 || !offsets.as_array()[0].is_int() ||
        !offsets.as_array()[1].is_int())
      return bad_tensor(name, "its data_offsets are no pair of integers");
    const int64_t begin = offsets.as_array()[0].as_int(), end = offsets.as_array()[1].as_int();
    if (begin < 0 || end < begin || end > data_bytes) {
      return bad_tensor(name, "its data are bytes " + std::to_string(begin) + " to " +
                                  std::to_string(end) + ", but the file has " +
                                  std::to_string(data_bytes) + " bytes of data");
    }
    tensor.bytes = end - begin;
    if (tensor.bytes != count * type->bytes) {
      return bad_tensor(name, "it is " + describe(tensor) + ", which takes " +
                                  std::to_string(count * type->bytes) + " bytes, but has " +
                                  std::to_string(tensor.bytes));
    }
    tensor.data = bytes.data() + 8 + header_bytes + begin;
    extents.push_back({begin, end, name});
    tensors_.emplace(name, std::move(tensor));
  }
  std::ranges::sort(extents, {}, [](const Extent& e) { return std::pair(e.begin, e.end); });
  int64_t reached = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != reached) {
      return bad_tensor(
          std::string(extent.name),
          "its data begin at byte " + std::to_string(extent.begin) +
              (extent.begin < reached ? ", inside of another tensor's" : ", behind a gap"));
    }
    reached = extent.end;
  }
  if (reached != data_bytes) {
    return Status::invalid_argument(std::to_string(data_bytes - reached) +
                                    " bytes behind the last tensor belong to none");
  }
  return {};
}

Result<std::vector<SafetensorsFile>> open_checkpoint_tensors(const std::string& folder) {
  std::vector<SafetensorsFile> files;
  const std::string index_path = folder + "/model.safetensors.index.json";
  Result<MappedFile> index = MappedFile::open(index_path);
  if (!index.ok()) {
    if (index.status().code() != StatusCode::kNotFound) return index.status();
    Result<SafetensorsFile> file = SafetensorsFile::open(folder + "/model.safetensors");
    if (!file.ok()) return file.status();
    files.push_back(std::move(file).value());
    return files;
  }
  const auto bad_index = [&](const std::string& what) {
    return Status::invalid_argument(file_name(index_path) + ": " + what);
  };
  const Result<Json> parsed = Json::parse(index.value().text());
  if (!parsed.ok()) return bad_index(parsed.status().message());
  const Json& weight_map = parsed.value()["weight_map"];
  if (!weight_map.is_object()) return bad_index("it has no weight_map");
  std::map<std::string, std::set<std::string>> names;  // of tensors, by file
  for (const auto& [tensor, file] : weight_map.as_object()) {
    if (!file.is_string() || file.as_string().find('/') != std::string::npos)
      return bad_index("the file of '" + tensor + "' is no file beside the index");
    names[file.as_string()].insert(tensor);
  }
  for (const auto& [name, tensors] : names) {
    Result<SafetensorsFile> file = SafetensorsFile::open(folder + "/" + name);
    if (!file.ok()) return file.status();
    const auto& held = file.value().tensors();
    for (const std::string& tensor : tensors)
      if (!held.contains(tensor)) return bad_index("'" + tensor + "' is not in " + name);
    for (const auto& [tensor, stored] : held)
      if (!tensors.contains(tensor))
        return bad_index("'" + tensor + "' of " + name + " is not listed");
    files.push_back(std::move(file).value());
  }
  return files;
}

}  // namespace mmcore::native
