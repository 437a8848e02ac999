#!/usr/bin/env bash
# Runs the C++ tests, the Python tests or both, and ends with one line for each.
#
#   run_tests.sh [cpp] [python] [-- PYTEST ARGUMENTS]
#
# PRESET names the CMake preset of the C++ tests (dev; asan and tsan take the sanitizers). Without arguments for it pytest
# runs as one process a core, at most four, which share the test files (MMCORE_TEST_CLAIMS); JOBS says how many.
# Without GoogleTest it installs Debian's package where it may; elsewhere it says what to install,
# runs the Python tests all the same and reports the C++ tests as NOT RUN.
set -uo pipefail
cd "$(dirname "$0")/.."

want=()
while [[ $# -gt 0 && $1 != -- ]]; do want+=("$1"); shift; done
[[ ${1:-} == -- ]] && shift
preset=${PRESET:-dev}
logs=build/logs
mkdir -p "$logs"
status=0
summary=()

heading() { printf '\n==> %s\n' "$*"; }

have_gtest() { echo '#include <gtest/gtest.h>' | "${CXX:-c++}" -std=c++20 -E -x c++ - >/dev/null 2>&1; }

install_gtest() {
  command -v apt-get >/dev/null || return 1
  local as_root=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
    as_root=(sudo -n)
  fi
  echo "installing libgtest-dev"
  "${as_root[@]}" apt-get update -qq >/dev/null 2>&1
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq libgtest-dev >/dev/null 2>&1 && have_gtest
}

run_cpp() {
  heading "C++ tests ($preset)"
  if ! have_gtest && ! install_gtest; then
    echo "GoogleTest is missing. Install it (Debian, Ubuntu: apt-get install libgtest-dev) and run again."
    summary+=("C++ tests ($preset): NOT RUN, GoogleTest is missing")
    return 0
  fi
  local log=$logs/ctest-$preset.log
  if ! cmake --preset "$preset" >"$logs/configure-$preset.log" 2>&1; then
    tail -n 30 "$logs/configure-$preset.log"
    summary+=("C++ tests ($preset): FAILED to configure")
    return 1
  fi
  if ! cmake --build --preset "$preset" >"$logs/build-$preset.log" 2>&1; then
    grep -E -A6 'error|FAILED' "$logs/build-$preset.log" | head -n 60
    summary+=("C++ tests ($preset): FAILED to build, see $logs/build-$preset.log")
    return 1
  fi
  ctest --preset "$preset" --parallel "$(nproc)" >"$log" 2>&1
  local rc=$?
  # The passing tests' lines are many and say nothing.
  grep -vE '^ *(Start +[0-9]+:|[0-9]+/[0-9]+ Test +#[0-9]+: .* Passed +[0-9.]+ sec$)' "$log" | tail -n 60
  if grep -q 'No tests were found' "$log"; then rc=1; fi
  summary+=("C++ tests ($preset): $(grep -E 'tests passed' "$log" || echo 'no result')")
  return $rc
}

run_python() {
  local jobs=${JOBS:-$(nproc)} claims rc=0 i
  [[ -n ${JOBS:-} || $jobs -le 4 ]] || jobs=4
  [[ $# -eq 0 ]] || jobs=1
  heading "Python tests ($jobs at once)"
  if [[ $jobs -le 1 ]]; then
    local log=$logs/pytest.log
    python -m pytest -q "$@" 2>&1 | tee "$log"
    rc=${PIPESTATUS[0]}
    summary+=("Python tests: $(tail -n 1 "$log" | sed 's/^=* *//; s/ *=*$//')")
    return "$rc"
  fi
  # Each takes a file of tests when it has done with one: the first in the foreground, the others' reports follow it.
  claims=$(mktemp -d)
  local pids=()
  for ((i = 2; i <= jobs; ++i)); do
    MMCORE_TEST_CLAIMS=$claims python -m pytest -q >"$logs/pytest-$i.log" 2>&1 &
    pids+=($!)
  done
  MMCORE_TEST_CLAIMS=$claims python -m pytest -q 2>&1 | tee "$logs/pytest-1.log"
  rc=${PIPESTATUS[0]}
  for ((i = 2; i <= jobs; ++i)); do
    wait "${pids[i - 2]}" || rc=$?
    printf '\n==> Python tests, process %s\n' "$i"
    cat "$logs/pytest-$i.log"
  done
  rm -rf "$claims"
  for ((i = 1; i <= jobs; ++i)); do
    summary+=("Python tests, process $i: $(tail -n 1 "$logs/pytest-$i.log" | sed 's/^=* *//; s/ *=*$//')")
  done
  return "$rc"
}

for kind in "${want[@]}"; do
  case $kind in
    cpp) run_cpp || status=1 ;;
    python) run_python "$@" || status=1 ;;
    *) echo "run_tests.sh: unknown kind '$kind'" >&2; exit 2 ;;
  esac
done

heading "Summary"
printf '%s\n' "${summary[@]}" | tee "$logs/summary.txt"
exit $status
