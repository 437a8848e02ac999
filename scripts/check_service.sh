#!/usr/bin/env bash
# Builds the example service against an installed mmcore, looks at what it links, asks it over HTTP and puts it under load.
#
#   check_service.sh CMAKE_DIR EXPECTED [ARGUMENTS OF load_test.py]
#
# CMAKE_DIR holds mmcoreConfig.cmake, EXPECTED what tests/embed/expected.py wrote. Debian's packages are installed where
# that is allowed; without them it says what is missing and checks nothing. SANITIZE names the sanitizers that the package
# was built with, as in MMCORE_SANITIZE: the service gets them, too, and ends with its first report.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake_dir=$1
expected=$2
shift 2
work=build/package
python=${PYTHON:-python}
packages=(libcpp-httplib-dev nlohmann-json3-dev libpng-dev libjpeg-dev)

present() {
  printf '#include <cstddef>\n#include <cstdio>\n#include <httplib.h>\n#include <jpeglib.h>\n#include <nlohmann/json.hpp>\n#include <png.h>\n' |
    "${CXX:-c++}" -std=c++20 -E -x c++ - >/dev/null 2>&1
}

install() {
  command -v apt-get >/dev/null || return 1
  local as_root=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
    as_root=(sudo -n)
  fi
  echo "installing ${packages[*]}"
  "${as_root[@]}" apt-get update -qq >/dev/null 2>&1
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq "${packages[@]}" >/dev/null 2>&1 && present
}

if ! present && ! install; then
  echo "service: NOT CHECKED, one of these is missing: ${packages[*]}"
  exit 0
fi
begin=$SECONDS
build=$work/service
options=()
if [[ -n ${SANITIZE:-} ]]; then
  build=$work/service-${SANITIZE%%,*}
  options+=(-DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS=-fsanitize=$SANITIZE -fno-omit-frame-pointer")
  export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/tests/embed/service/tsan_suppressions.txt
fi
mkdir -p "$work"
if ! { cmake -S examples/embed_cpp -B "$build" -G Ninja -Dmmcore_DIR="$cmake_dir" "${options[@]}" && cmake --build "$build"; } >"$work/log.txt" 2>&1; then
  tail -n 40 "$work/log.txt"
  exit 1
fi
program=$build/mmcore_service
if ldd "$program" | awk '{print $1, $3}' | grep -iE '^[^ ]*(python|torch|cuda|cublas)| not$'; then
  echo "service: it must not link these"
  exit 1
fi
"$python" tests/embed/service/service_test.py "$program" "$expected/expected.json"
"$python" tests/embed/service/load_test.py "$program" "$@" | grep -v '^{'
echo "service${SANITIZE:+ with $SANITIZE}: as it should be ($((SECONDS - begin)) s)"
