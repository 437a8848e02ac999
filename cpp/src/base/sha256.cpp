#include "base/sha256.h"

#include <algorithm>

namespace mmcore {
void Sha256::update(std::span<const uint8_t> data) {
  total_bytes_ += data.size();
  if (buffered_ != 0) {
    const size_t n = std::min(data.size(), buffer_.size() - buffered_);
    std::copy_n(data.begin(), n, buffer_.begin() + static_cast<ptrdiff_t>(buffered_));
    buffered_ += n;
    data = data.subspan(n);
    if (buffered_ < buffer_.size()) return;
    blocks_(state_.data(), buffer_.data(), 1);
    buffered_ = 0;
  }
  const size_t whole = data.size() / buffer_.size();
  blocks_(state_.data(), data.data(), whole);
  data = data.subspan(whole * buffer_.size());
  std::copy(data.begin(), data.end(), buffer_.begin());
  buffered_ = data.size();
}

Sha256::Digest Sha256::finish() {
  const uint64_t bits = total_bytes_ * 8;
  // The message, a one bit, zeros up to 56 mod 64, the length in bits as 8 bytes big-endian.
  std::array<uint8_t, 72> tail{};
  tail[0] = 0x80;
  const size_t zeros_end = (buffered_ < 56 ? 56 : 120) - buffered_;
  for (size_t i = 0; i < 8; ++i) tail[zeros_end + i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  update(std::span(tail).first(zeros_end + 8));
  Digest digest;
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < 4; ++j)
      digest[4 * i + j] = static_cast<uint8_t>(state_[i] >> (24 - 8 * j));
  }
  return digest;
}

}  // namespace mmcore
