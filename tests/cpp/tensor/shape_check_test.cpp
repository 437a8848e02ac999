// Layer: unit.
#include "tensor/shape_check.h"

#include <gtest/gtest.h>

#include "tensor/dispatch.h"

namespace mmcore {
namespace {

alignas(64) float memory[4096];

TensorView view(std::initializer_list<int64_t> shape, DType dtype = DType::kFloat32) {
  return TensorView(memory, dtype, shape);
}

TEST(ShapeCheck, BindsDimsAcrossTensors) {
  ShapeCheck check("op");
  const auto T = check.dim("T"), I = check.dim("I"), N = check.dim("N");
  check.tensor("x", view({3, 8}), {T, 2 * I});
  check.tensor("out", view({3, 4}), {T, I});
  check.tensor("starts", view({6}, DType::kInt32), {N + 1});
  check.tensor("lens", view({5}, DType::kInt32), {N}).dtype(DType::kInt32);
  check.optional("bias", {}, {I});
  ASSERT_TRUE(check.ok()) << check.status().message();
  EXPECT_EQ(check.size(T), 3);
  EXPECT_EQ(check.size(I), 4);
  EXPECT_EQ(check.size(2 * I), 8);
  EXPECT_EQ(check.size(N), 5);
}

/// The message of one check after x [T, H] = [3, 4] has passed.
std::string refused(void (*run)(ShapeCheck&, ShapeCheck::Dim, ShapeCheck::Dim)) {
  ShapeCheck check("rms_norm");
  const auto T = check.dim("T"), H = check.dim("H");
  check.tensor("x", view({3, 4}), {T, H});
  EXPECT_TRUE(check.ok());
  run(check, T, H);
  EXPECT_EQ(check.status().code(), StatusCode::kInvalidArgument);
  return check.status().message();
}

using Check = ShapeCheck;
using Dim = ShapeCheck::Dim;

TEST(ShapeCheck, SaysWhatWasGivenAndWhatWasExpected) {
  EXPECT_EQ(refused([](Check& c, Dim, Dim H) { c.tensor("weight", view({3}), {H}); }),
            "rms_norm: weight has shape [3], expected [H] with H = 4 from x");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) { c.tensor("y", view({3, 4, 1}), {T, H}); }),
            "rms_norm: y has shape [3, 4, 1], expected [T, H] with T = 3 from x, H = 4 from x");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) { c.tensor("y", view({3, 7}), {T, 2 * H}); }),
            "rms_norm: y has shape [3, 7], expected [T, 2 * H] with T = 3 from x, H = 4 from x");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim) { c.tensor("y", view({3}), {T + 1}); }),
            "rms_norm: y has shape [3], expected [T + 1] with T = 3 from x");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim) { c.tensor("pairs", view({3, 3}), {T, 2}); }),
            "rms_norm: pairs has shape [3, 3], expected [T, 2] with T = 3 from x");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim) {
              const auto I = c.dim("I");
              c.tensor("y", view({2, 6}), {T, I});  // I is bound by nobody
            }),
            "rms_norm: y has shape [2, 6], expected [T, I] with T = 3 from x");
  EXPECT_EQ(refused([](Check& c, Dim, Dim H) { c.tensor("weight", {}, {H}); }),
            "rms_norm: weight is absent, expected [H] with H = 4 from x");
}

TEST(ShapeCheck, SaysWhichDtypesItTakes) {
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) {
              c.tensor("y", view({3, 4}, DType::kInt64), {T, H}).floating();
            }),
            "rms_norm: y is int64, expected float32, bfloat16 or float16");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) {
              c.tensor("y", view({3, 4}), {T, H}).dtype(DType::kBFloat16);
            }),
            "rms_norm: y is float32, expected bfloat16");
}

TEST(ShapeCheck, LooksAtMemory) {
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) {
              TensorView y = view({3, 4});
              y.strides[1] = 2;
              c.tensor("y", y, {T, H});
            }),
            "rms_norm: y has stride 2 in its last axis, expected 1; make it contiguous");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) {
              TensorView y = view({3, 4});
              y.data = nullptr;
              c.tensor("y", y, {T, H});
            }),
            "rms_norm: y has no data for shape [3, 4]");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) {
              TensorView y = view({3, 4});
              y.data = reinterpret_cast<char*>(memory) + 2;
              c.tensor("y", y, {T, H});
            }),
            "rms_norm: y is not aligned to its elements of 4 bytes");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) {
              TensorView y = view({3, 4});
              y.device = {DeviceType::kCuda, 1};
              c.tensor("y", y, {T, H});
            }),
            "rms_norm: y is on cuda:1, expected cpu as x");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) {
              TensorView y = view({3, 4});
              y.strides[0] = 3;
              c.tensor("y", y, {T, H}).writable();
            }),
            "rms_norm: y is written but its elements overlap (stride 3 in axis 0)");
  EXPECT_EQ(refused([](Check& c, Dim T, Dim H) {
              TensorView y = view({3, 4});
              y.strides[0] = 5;
              c.tensor("y", y, {T, H}).contiguous_from(0);
            }),
            "rms_norm: y has stride 5 in axis 0, expected 4; make it contiguous");
}

TEST(ShapeCheck, SurvivesNonsense) {
  EXPECT_EQ(refused([](Check& c, Dim, Dim H) {
              TensorView y = view({3});
              y.shape[0] = -3;
              c.tensor("y", y, {H});
            }),
            "rms_norm: y has shape [-3], expected [H] with H = 4 from x");
  EXPECT_EQ(refused([](Check& c, Dim, Dim) {
              TensorView y = view({3});
              y.rank = 9;
              c.any_shape("y", y);
            }),
            "rms_norm: y has rank 9, the most is 6");
}

TEST(ShapeCheck, TakesAxesInAnyOrderWhereTheyDoNotOverlap) {
  ShapeCheck check("op");
  TensorView transposed = view({2, 3, 4});  // stored as [3, 2, 4]
  transposed.strides = {4, 8, 1};
  check.any_shape("x", transposed).writable();
  TensorView single = view({1, 4});  // the stride of a single row says nothing
  single.strides = {0, 1};
  check.any_shape("y", single).writable();
  check.any_shape("empty", TensorView(nullptr, DType::kFloat32, {0, 4})).writable();
  EXPECT_TRUE(check.ok()) << check.status().message();
}

TEST(ShapeCheck, KeepsTheFirstFailure) {
  ShapeCheck check("op");
  const auto T = check.dim("T");
  check.tensor("x", {}, {T});
  check.tensor("y", {}, {T});
  check.fail("something else");
  EXPECT_EQ(check.status().message(), "op: x is absent, expected [T]");
}

TEST(DispatchFloat, CallsWithTheType) {
  const auto size = [](DType dtype) {
    size_t result = 0;
    EXPECT_TRUE(dispatch_float(dtype, "op", [&]<class T>() {
                  EXPECT_EQ(dtype_of<T>, dtype);
                  result = sizeof(T);
                }).ok());
    return result;
  };
  EXPECT_EQ(size(DType::kFloat32), 4u);
  EXPECT_EQ(size(DType::kBFloat16), 2u);
  EXPECT_EQ(size(DType::kFloat16), 2u);
}

TEST(DispatchFloat, PassesOnAStatusAndNamesAnUnknownType) {
  const auto fails = []<class T>() { return Status::unsupported("no"); };
  EXPECT_EQ(dispatch_float(DType::kFloat32, "op", fails).message(), "no");
  const Status status = dispatch_float(DType::kInt64, "op", fails);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "op: no kernel for dtype int64; expected float32, bfloat16 or float16");
}

}  // namespace
}  // namespace mmcore
