#include "mirror.h"

#include <cstring>

namespace mmcore::cuda {

Mirror::Mirror(const ops::testing::HostTensor& host) : view_(host.view()) {
  if (!host.present()) return;
  const std::vector<std::byte>& bytes = host.bytes();
  const auto start = static_cast<size_t>(static_cast<const std::byte*>(view_.data) - bytes.data());
  shift_ = (64 - start % 64) % 64;
  bytes_ = DeviceTensor(DType::kUInt8, {static_cast<int64_t>(shift_ + bytes.size())});
  std::vector<uint8_t> shifted(shift_ + bytes.size(), 0xff);
  std::memcpy(shifted.data() + shift_, bytes.data(), bytes.size());
  bytes_.write(shifted);
  view_.data = bytes_.view().ptr<char>() + shift_ + start;
  view_.device = bytes_.view().device;
}

void Mirror::fetch(ops::testing::HostTensor& host) const {
  if (!host.present()) return;
  const std::vector<uint8_t> back = bytes_.bytes();
  ASSERT_EQ(back.size(), shift_ + host.bytes().size());
  const auto* first = static_cast<const std::byte*>(host.view().data);
  ASSERT_EQ(shift_ + static_cast<size_t>(first - host.bytes().data()),
            static_cast<size_t>(view_.ptr<char>() - bytes_.view().ptr<char>()))
      << "not the tensor that this was made from, nor a copy of it";
  // The tensor owns its bytes and hands out views of them that may be written.
  std::memcpy(const_cast<std::byte*>(host.bytes().data()), back.data() + shift_,
              host.bytes().size());
}

}  // namespace mmcore::cuda
