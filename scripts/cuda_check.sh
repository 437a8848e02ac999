#!/usr/bin/env bash
# Compiles every CUDA source for one architecture, warnings as errors. No GPU is needed and nothing runs.
# Without nvcc it says so and succeeds: there is nothing that could be compiled.
set -euo pipefail
cd "$(dirname "$0")/.."
nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
if [[ ! -x $nvcc ]]; then
  echo "no nvcc on this machine: CUDA sources are not compiled"
  exit 0
fi
export CUDACXX=$nvcc
mkdir -p build/logs
if ! cmake --preset cuda-check -DPython_EXECUTABLE="$(command -v python)" >build/logs/configure-cuda.log 2>&1; then
  tail -n 30 build/logs/configure-cuda.log
  exit 1
fi
if ! cmake --build --preset cuda-check >build/logs/build-cuda.log 2>&1; then
  grep -E -A8 'error|FAILED' build/logs/build-cuda.log | head -n 80
  exit 1
fi
echo "CUDA sources compiled for sm_90a in $SECONDS s"
