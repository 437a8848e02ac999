// A test that runs once for each instruction set; skipped where the machine lacks it.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "mmcore/ops.h"

namespace mmcore::ops::testing {

class IsaTest : public ::testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    const Status status = set_cpu_isa(GetParam());
    if (!status.ok()) GTEST_SKIP() << status.message();
  }
  void TearDown() override {
    ASSERT_TRUE(set_cpu_isa(before_).ok());
    set_num_threads(threads_before_);
  }

 private:
  CpuIsa before_ = cpu_isa();
  int threads_before_ = num_threads();
};

/// Those of this machine, for tests that compare many inputs with one expensive answer.
inline std::vector<CpuIsa> available_isas() {
  std::vector<CpuIsa> isas;
  const CpuIsa before = cpu_isa();
  for (const CpuIsa isa : {CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16,
                           CpuIsa::kAmxBf16}) {
    if (set_cpu_isa(isa).ok()) isas.push_back(isa);
  }
  EXPECT_TRUE(set_cpu_isa(before).ok());
  return isas;
}

/// Chooses an instruction set while it lives.
class ScopedIsa {
 public:
  explicit ScopedIsa(CpuIsa isa) { EXPECT_TRUE(set_cpu_isa(isa).ok()); }
  ~ScopedIsa() { EXPECT_TRUE(set_cpu_isa(before_).ok()); }

 private:
  CpuIsa before_ = cpu_isa();
};

inline std::string isa_name(const ::testing::TestParamInfo<CpuIsa>& info) {
  return to_string(info.param);
}

inline const auto kEveryIsa = ::testing::Values(CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512,
                                                CpuIsa::kAvx512Bf16, CpuIsa::kAmxBf16);

}  // namespace mmcore::ops::testing
