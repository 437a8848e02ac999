// Layer: unit.
#include "ops/cpu_isa.h"

#include <gtest/gtest.h>

#include <string>

#include "ops/isa_test.h"

namespace mmcore::ops::testing {
namespace {

TEST(SetCpuIsa, TakesWhatTheMachineHas) {
  const CpuIsa before = cpu_isa();
  EXPECT_LE(before, detected_cpu_isa());
  for (const CpuIsa isa : available_isas()) {
    const ScopedIsa scoped(isa);
    EXPECT_EQ(cpu_isa(), isa);
  }
  EXPECT_EQ(cpu_isa(), before);
}

TEST(SetCpuIsa, RefusesWhatItLacksOrDoesNotKnow) {
  const CpuIsa before = cpu_isa();
  for (const int number : {-1, 1000}) {
    const Status status = set_cpu_isa(static_cast<CpuIsa>(number));
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(std::to_string(number)), std::string::npos);
  }
  const ScopedIsa scoped(CpuIsa::kReference);
  if (detected_cpu_isa() < CpuIsa::kAvx512Bf16) {
    const Status status = set_cpu_isa(CpuIsa::kAvx512Bf16);
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_NE(status.message().find("avx512_bf16"), std::string::npos);
    EXPECT_EQ(cpu_isa(), CpuIsa::kReference);
  }
  EXPECT_LE(before, detected_cpu_isa());
}

TEST(SetNumThreads, IsSeenByNumThreads) {
  const int before = num_threads();
  set_num_threads(3);
  EXPECT_EQ(num_threads(), 3);
  set_num_threads(before);
  EXPECT_EQ(num_threads(), before);
}

}  // namespace
}  // namespace mmcore::ops::testing
