// Timing a kernel as benchmarks/cuda/graph_timing.py does, for programs without Python.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "mmcore/status.h"
#include "mmcore/stream.h"

namespace mmcore::bench {

inline void must(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}
inline void must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

/// Median microseconds of one call in a CUDA graph of `calls` calls; call(i, stream) is to use the
/// tensors of set i.
inline double graph_us(const std::function<Status(int, Stream)>& call, int calls = 64) {
  cudaStream_t stream = nullptr;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (int i = 0; i < 3; ++i) must(call(i, Stream{stream}));
  must(cudaStreamSynchronize(stream));
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < calls; ++i) must(call(i, Stream{stream}));
  cudaGraph_t graph = nullptr;
  must(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t replay = nullptr;
  must(cudaGraphInstantiate(&replay, graph, 0));
  cudaEvent_t begin = nullptr, end = nullptr;
  must(cudaEventCreate(&begin));
  must(cudaEventCreate(&end));
  std::vector<float> samples;
  for (int i = 0; i < 12; ++i) {
    must(cudaEventRecord(begin, stream));
    must(cudaGraphLaunch(replay, stream));
    must(cudaEventRecord(end, stream));
    must(cudaEventSynchronize(end));
    float ms = 0;
    must(cudaEventElapsedTime(&ms, begin, end));
    if (i > 0) samples.push_back(ms * 1e3f / static_cast<float>(calls));
  }
  must(cudaEventDestroy(begin));
  must(cudaEventDestroy(end));
  must(cudaGraphExecDestroy(replay));
  must(cudaGraphDestroy(graph));
  must(cudaStreamDestroy(stream));
  std::sort(samples.begin(), samples.end());
  return samples[samples.size() / 2];
}

}  // namespace mmcore::bench
