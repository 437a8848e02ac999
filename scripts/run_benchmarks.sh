#!/usr/bin/env bash
# Builds and runs the C++ benchmarks, then the CPU ops against torch. Arguments go to the latter.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -f benchmarks/cpp/CMakeLists.txt ]]; then
  cmake --preset release -DMMCORE_TESTS=OFF >/dev/null
  cmake --build --preset release
  find build/release/benchmarks/cpp -maxdepth 1 -type f -executable | sort | while read -r program; do
    echo
    echo "== $(basename "$program")"
    "$program"
  done
fi
echo
echo "== CPU ops against torch"
python -m benchmarks.ops_vs_torch "$@"
