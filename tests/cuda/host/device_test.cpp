#include "host/device.h"

#include <gtest/gtest.h>

#include "device_tensor.h"

namespace mmcore::cuda {
namespace {

class DeviceTest : public GpuTest {};

TEST_F(DeviceTest, FactsOfTheFirstDevice) {
  const auto facts = device_facts({DeviceType::kCuda, 0});
  ASSERT_TRUE(facts.ok()) << facts.status().message();
  EXPECT_GE(facts.value()->multiprocessors, 1);
  EXPECT_GE(facts.value()->capability, 80);
  EXPECT_GE(facts.value()->shared_bytes, 48 * 1024);
}

TEST_F(DeviceTest, DeviceThatDoesNotExist) {
  const auto facts = device_facts({DeviceType::kCuda, 63});
  ASSERT_FALSE(facts.ok());
  EXPECT_EQ(facts.status().code(), StatusCode::kUnsupported);
}

TEST_F(DeviceTest, TensorsTravelBothWays) {
  const DeviceTensor t =
      DeviceTensor::from(std::vector<float>{1.5f, -2.0f, 3.25f}, {3}, DType::kBFloat16);
  EXPECT_EQ(t.floats(), (std::vector<float>{1.5f, -2.0f, 3.25f}));
}

}  // namespace
}  // namespace mmcore::cuda
