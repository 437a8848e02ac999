// Memory, streams, events and graphs of gpu.h.
#include "mmcore/gpu.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "device_tensor.h"
#include "mmcore/ops.h"

namespace mmcore::gpu {
namespace {

constexpr Device kFirst{DeviceType::kCuda, 0};

class GpuObjects : public cuda::GpuTest {};

TEST_F(GpuObjects, KnowsTheDevices) {
  ASSERT_GE(device_count(), 1);
  const auto found = properties(kFirst);
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_FALSE(found.value().name.empty());
  EXPECT_GE(found.value().capability, 80);
  EXPECT_GT(found.value().multiprocessors, 0);
  EXPECT_GT(found.value().free_bytes, 0);
  EXPECT_GE(found.value().total_bytes, found.value().free_bytes);
  for (const int32_t index : {-1, device_count(), 63}) {
    const Status status = properties({DeviceType::kCuda, index}).status();
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_NE(status.message().find("device cpu"), std::string::npos) << status.message();
  }
}

TEST_F(GpuObjects, BytesTravelThereAndBack) {
  constexpr int64_t kBytes = 100003;
  auto stream = OwnedStream::make(kFirst).value();
  const auto there = Memory::on_device(kFirst, kBytes).value();
  const auto from = Memory::pinned(kFirst, kBytes).value();
  const auto back = Memory::pinned(kFirst, kBytes).value();
  const auto arrived = Event::make(kFirst).value();
  auto* const source = static_cast<uint8_t*>(from.data());
  auto* const target = static_cast<uint8_t*>(back.data());
  ASSERT_TRUE(arrived.wait().ok()) << "before any record";

  std::memset(target, 7, kBytes);
  ASSERT_TRUE(copy(kFirst, target, there.data(), kBytes, stream.get()).ok());
  ASSERT_TRUE(stream.wait().ok());
  EXPECT_EQ(std::accumulate(target, target + kBytes, 0), 0) << "new memory is zeros";

  for (int64_t i = 0; i < kBytes; ++i) source[i] = static_cast<uint8_t>(i * 31);
  ASSERT_TRUE(copy(kFirst, there.data(), source, kBytes, stream.get()).ok());
  // Rows of 3 out of each 10 bytes, packed behind each other.
  ASSERT_TRUE(copy_rows(kFirst, target, 3, there.data(), 10, 3, 50, stream.get()).ok());
  ASSERT_TRUE(arrived.record(stream.get()).ok());
  ASSERT_TRUE(arrived.wait().ok());
  for (int64_t i = 0; i < 150; ++i) EXPECT_EQ(target[i], source[i / 3 * 10 + i % 3]);

  ASSERT_TRUE(fill_zeros(kFirst, there.data(), 10, stream.get()).ok());
  ASSERT_TRUE(copy(kFirst, target, there.data(), 20, stream.get()).ok());
  ASSERT_TRUE(stream.wait().ok());
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(target[i], i < 10 ? 0 : source[i]);
  stream = OwnedStream::make(kFirst).value();
  EXPECT_TRUE(stream.wait().ok());
}

TEST_F(GpuObjects, AGraphDoesItsWorkAsOftenAsItIsLaunched) {
  const auto stream = OwnedStream::make(kFirst).value();
  const auto x = cuda::DeviceTensor::from(std::vector<float>{1, 2, 3, 4}, {1, 4});
  const auto out = cuda::DeviceTensor::from(std::vector<float>{0, 0, 0, 0}, {1, 4});
  ASSERT_EQ(out.floats()[3] + x.floats()[3], 4) << "they have arrived";
  const auto graph = Graph::capture(kFirst, stream.get(),
                                    [&] { return ops::add(x.view(), out.view(), stream.get()); });
  ASSERT_TRUE(graph.ok()) << graph.status().message();
  EXPECT_EQ(out.floats()[3], 0) << "capturing runs nothing";
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(graph.value().launch(stream.get()).ok());
  ASSERT_TRUE(stream.wait().ok());
  EXPECT_EQ(out.floats(), (std::vector<float>{3, 6, 9, 12}));
}

TEST_F(GpuObjects, WorkThatFailsLeavesTheStreamUsable) {
  const auto stream = OwnedStream::make(kFirst).value();
  const auto x = cuda::DeviceTensor::from(std::vector<float>{1, 2}, {1, 2});
  const auto out = cuda::DeviceTensor::from(std::vector<float>{5, 5}, {1, 2});
  ASSERT_EQ(out.floats()[0] + x.floats()[0], 6) << "they have arrived";
  const auto refused = Graph::capture(kFirst, stream.get(), [&]() -> Status {
    MMCORE_RETURN_IF_ERROR(ops::add(x.view(), out.view(), stream.get()));
    return Status::invalid_argument("no");
  });
  EXPECT_EQ(refused.status().message(), "no");
  EXPECT_THROW(static_cast<void>(Graph::capture(kFirst, stream.get(),
                                                []() -> Status { throw InternalError("oh"); })),
               InternalError);
  ASSERT_TRUE(ops::add(x.view(), out.view(), stream.get()).ok());
  ASSERT_TRUE(stream.wait().ok());
  EXPECT_EQ(out.floats(), (std::vector<float>{6, 7}));
}

TEST_F(GpuObjects, MemoryThatIsNotThereIsAStatus) {
  const auto before = properties(kFirst).value();
  const auto made = Memory::on_device(kFirst, before.total_bytes + 1);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), StatusCode::kUnservable);
  EXPECT_NE(made.status().message().find("are free"), std::string::npos) << made.status().message();
  // The failure is told once: the next launch does not find it.
  const auto x = cuda::DeviceTensor::from(std::vector<float>{1, 2}, {1, 2});
  EXPECT_TRUE(ops::add(x.view(), x.view()).ok());
}

}  // namespace
}  // namespace mmcore::gpu
