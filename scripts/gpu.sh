#!/usr/bin/env bash
# On a machine with a GPU: builds with CUDA, runs what is marked gpu, then times the kernels.
#
#   gpu.sh [build] [sanitize] [test] [e2e] [bench] [e2e-bench]
#
# Without a name: build, test, e2e, bench.
#
# OUT        folder for logs and JSON (default build/gpu)
# PYTHON     an interpreter with torch for CUDA, pybind11, cmake and ninja (default python3)
# ARCH       CMake's CUDA architectures (default 90a-real)
# FILTER     GoogleTest's filter for test and sanitize; FAMILIES the benchmarks' names
# TOOLS      compute-sanitizer's tools (default racecheck memcheck), SANITIZERS of them side by side (default 6),
#            SANITIZE_SECONDS for each test (default 240)
set -uo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-build/gpu} PYTHONPATH=$PWD/python:$PWD PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
want=${*:-build test e2e bench}
mkdir -p "$OUT"
status=0
verdicts=()

note() { # NAME RC
  if [[ $2 -eq 0 ]]; then verdicts+=("$1: passed"); else verdicts+=("$1: FAILED"); status=1; fi
}

build() {
  cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES="${ARCH:-90a-real}" -DPython_EXECUTABLE="$(command -v "$python")" \
    >"$OUT/configure.log" 2>&1 || { tail -n 20 "$OUT/configure.log"; return 1; }
  cmake --build --preset cuda -- -k 0 >"$OUT/build.log" 2>&1 ||
    { grep -E -A8 'error|FAILED' "$OUT/build.log" | head -n 80; return 1; }
}

# In shards side by side: most of a test's time is its float64 reference on one core.
cpp_tests() {
  local i rc=0 shards=${SHARDS:-12} pids=()
  for ((i = 0; i < shards; ++i)); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$i timeout -k 5 "${SHARD_SECONDS:-90}" build/cuda/tests/cuda/mmcore_cuda_tests \
      --gtest_filter="${FILTER:-*}" >"$OUT/cpp_tests.$i.log" 2>&1 &
    pids+=($!)
  done
  for i in "${pids[@]}"; do wait "$i" || rc=1; done
  for ((i = 0; i < shards; ++i)); do # a kernel that never ends: name the test
    grep -q '^\[==========\] .* ran\.' "$OUT/cpp_tests.$i.log" ||
      echo "NOT FINISHED: $(grep '^\[ RUN' "$OUT/cpp_tests.$i.log" | tail -n 1)"
  done
  cat "$OUT"/cpp_tests.*.log >"$OUT/cpp_tests.log"
  rm -f "$OUT"/cpp_tests.*.log
  grep -vE '^\[( RUN|       OK|-----|=====)|^Note: |^Running main|^$' "$OUT/cpp_tests.log" | head -n "${LINES_SHOWN:-60}"
  echo "$(grep -c '^\[       OK' "$OUT/cpp_tests.log") tests passed"
  return $rc
}

# A process for each test, several side by side: some take minutes under racecheck, and one that is not finished is named.
sanitized() { # TOOL TEST
  local log=$OUT/$1.$2.log rc begin=$SECONDS
  timeout -k 5 "${SANITIZE_SECONDS:-240}" compute-sanitizer --tool "$1" --error-exitcode 9 \
    build/cuda/tests/cuda/mmcore_cuda_tests --gtest_brief=1 --gtest_filter="$2" >"$log" 2>&1
  rc=$?
  grep -q '1 test from 1 test suite ran' "$log" || [[ $rc -ne 0 ]] || rc=1
  echo "$1 $2: $([[ $rc -eq 0 ]] && echo clean || echo "FAILED ($rc)"), $((SECONDS - begin)) s"
  [[ $rc -eq 0 ]] || { grep -E '^=========|FAILED' "$log" | head -n 20; }
  return $rc
}

sanitizers() {
  local tests test tool rc=0
  tests=$(build/cuda/tests/cuda/mmcore_cuda_tests --gtest_list_tests --gtest_filter="${FILTER:-*Reduced*}" |
    awk '/^[^ ]/ { suite = $1 } /^ / { print suite $1 }') || return 1
  [[ -n $tests ]] || { echo "no test matches ${FILTER:-*Reduced*}"; return 1; }
  export -f sanitized
  for tool in ${TOOLS:-racecheck memcheck}; do
    for test in $tests; do printf '%s %s\n' "$tool" "$test"; done
  done | xargs -P "${SANITIZERS:-6}" -n 2 bash -c 'sanitized "$@"' - | tee "$OUT/sanitizers.log" || rc=1
  return $rc
}

# The tests closest to the kernels first; a device on which all fails must not cost hours.
python_tests() {
  timeout 400 "$python" -m pytest -q -m gpu -p no:cacheprovider --tb=short --maxfail=40 --durations=5 \
    tests/python/gpu/test_ops.py tests/python/gpu tests/python/examples/test_add_a_model.py tests/python/e2e 2>&1 |
    tee "$OUT/python_tests.log" | tail -n 60
}

# shellcheck disable=SC2086 # names are words
bench() { "$python" -m benchmarks.cuda --json "$OUT/cuda.json" ${FAMILIES:-} 2>&1 | tee "$OUT/bench.txt"; }

e2e_bench() { "$python" -m benchmarks.e2e.llava7b --eager --timeline --requests 256 --json "$OUT/llava7b.json" 2>&1 | tee "$OUT/llava7b.txt"; }

for step in $want; do
  printf '\n==> %s (%s s)\n' "$step" "$SECONDS"
  case $step in
    build) build; note build $?; [[ $status -ne 0 ]] && break ;;
    sanitize) sanitizers; note sanitize $? ;;
    test) cpp_tests; note "C++ GPU tests" $? ;;
    e2e) python_tests; note "Python GPU tests" $? ;;
    bench) build/cuda/benchmarks/cuda/mmcore_bench_cuda 2>&1 | tee "$OUT/bench_cpp.txt"; note "C++ benchmark" $?
           bench; note benchmarks $? ;;
    e2e-bench) e2e_bench; note "end-to-end benchmark" $? ;;
    *) echo "gpu.sh: no step '$step'; expected build, sanitize, test, e2e, bench or e2e-bench"; exit 2 ;;
  esac
done
printf '\n%s s\n' "$SECONDS"
printf '%s\n' "${verdicts[@]}"
exit $status
