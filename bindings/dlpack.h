// The parts of the DLPack C structures that a consumer reads; their layout is fixed by the
// protocol.
#pragma once

#include <cstdint>

namespace mmcore::python::dlpack {

enum DeviceCode : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kFloat8E4M3 = 10 };

struct Tensor {
  void* data;
  struct {
    int32_t type;
    int32_t index;
  } device;
  int32_t rank;
  struct {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
  } dtype;
  int64_t* shape;
  int64_t* strides;  // elements; null: contiguous
  uint64_t byte_offset;
};

/// What a capsule named "dltensor" holds. A capsule that nobody renames frees it itself.
struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

}  // namespace mmcore::python::dlpack
