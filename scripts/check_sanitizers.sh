#!/usr/bin/env bash
# Runs what hosts lean on under the sanitizers: the tests of the core, of the loop and the C API (misuse included) and of
# the native runner, and then the example service, built against a package that was installed from the same build.
#
#   check_sanitizers.sh [asan] [tsan]     both, unless named
#
# TESTS=0 or SERVICE=0 leave a half out; LOAD has arguments of tests/embed/service/load_test.py, whose whole size, 200
# clients and then 1,000 that leave, is without any. PYTHON names one that can import mmcore. Left out under the thread
# sanitizer: a forked child (it lets that start no threads), and the ops but for their thread pool.
set -uo pipefail
cd "$(dirname "$0")/.."
work=build/sanitizers
python=${PYTHON:-python}
load=${LOAD---clients 40 --disconnects 120 --rounds 1}
mkdir -p "$work"
failed=()

quiet() { "$@" >"$work/log.txt" 2>&1 || { tail -n 40 "$work/log.txt"; echo "check_sanitizers: failed: $*"; exit 1; }; }

tests() { # tests PRESET PROGRAM [FILTER]
  local log=$work/$1-$(basename "$2").txt
  if "build/$1/tests/cpp/$2" --gtest_brief=1 "--gtest_filter=${3:-*}" >"$log" 2>&1; then
    echo "$1, $(basename "$2"): $(grep -E ' ran\.' "$log" | sed 's/^\[=*\] //')"
  else
    tail -n 60 "$log"
    failed+=("$1 $2")
  fi
}

check() {
  local preset=$1 sanitize=$2
  local targets=(mmcore_package)
  [[ ${TESTS:-1} == 0 ]] || targets+=(mmcore_core_tests mmcore_host_tests mmcore_native_tests mmcore_ops_tests)
  quiet cmake --preset "$preset"
  quiet cmake --build --preset "$preset" --target "${targets[@]}"
  if [[ ${TESTS:-1} != 0 ]]; then
    tests "$preset" mmcore_core_tests
    tests "$preset" mmcore_host_tests
    tests "$preset" native/mmcore_native_tests
    if [[ $preset == tsan ]]; then tests tsan mmcore_ops_tests 'ThreadPool*-*ForkedChild'; else tests asan mmcore_ops_tests; fi
  fi
  [[ ${SERVICE:-1} != 0 ]] || return 0
  local place=$work/package-$preset
  rm -rf "$place"
  quiet cmake --install "build/$preset" --prefix "$place"
  # shellcheck disable=SC2086
  SANITIZE=$sanitize PYTHON=$python scripts/check_service.sh "$PWD/$(dirname "$(find "$place" -name mmcoreConfig.cmake)")" \
    "$work/expected" $load || failed+=("$preset service")
}

if [[ ${SERVICE:-1} != 0 ]]; then
  mkdir -p "$work/expected"
  quiet "$python" tests/embed/expected.py "$work/expected"
fi
[[ $# -gt 0 ]] || set -- asan tsan
for preset in "$@"; do
  begin=$SECONDS
  case $preset in
    asan) check asan address,undefined ;;
    tsan) check tsan thread ;;
    *) echo "check_sanitizers.sh: expected asan or tsan, not '$preset'" >&2; exit 2 ;;
  esac
  echo "$preset: done ($((SECONDS - begin)) s)"
done
if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'sanitizers: FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "sanitizers: nothing was found"
