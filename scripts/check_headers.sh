#!/usr/bin/env bash
# Compiles each public header alone, as a host with strict warnings would, with g++ and clang++; those for C as C11 too.
#
# A compiler that is missing is left out, with a word; with CI=1 clang is installed first where that can be done.
set -euo pipefail
cd "$(dirname "$0")/.."
strict=(-Wall -Wextra -Wconversion -Wshadow -Wpedantic -Werror)
failed=0

install_clang() {
  command -v clang++ >/dev/null && return
  [[ ${CI:-} == 1 && $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 0
  apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends clang >/dev/null 2>&1 || true
}

# check COMPILER LANGUAGE STANDARD HEADER [OPTION...]: twice included, then empty but for a declaration.
check() {
  local compiler=$1 language=$2 standard=$3 header=$4
  shift 4
  printf '#include "mmcore/%s"\n#include "mmcore/%s"\nint mmcore_header_is_complete(void);\n' "$header" "$header" |
    "$compiler" -x "$language" -std="$standard" -fsyntax-only "${strict[@]}" "$@" -Icpp/include - || {
    echo "check_headers: mmcore/$header does not compile alone as $standard with $compiler"
    failed=1
  }
}

# A header for C says so itself.
is_for_c() { grep -q 'extern "C"' "cpp/include/mmcore/$1"; }

install_clang
compilers=()
for pair in g++:gcc clang++:clang; do
  if command -v "${pair%:*}" >/dev/null; then
    compilers+=("$pair")
  else
    echo "check_headers: ${pair%:*} is not installed: skipped"
  fi
done
headers=0
for path in cpp/include/mmcore/*.h; do
  header=$(basename "$path")
  headers=$((headers + 1))
  for pair in "${compilers[@]}"; do
    check "${pair%:*}" c++ c++20 "$header"
    if is_for_c "$header"; then
      check "${pair#*:}" c c11 "$header" -Wstrict-prototypes
      # A host that is C++11 or C++14 otherwise may use them as well.
      check "${pair%:*}" c++ c++11 "$header"
    fi
  done
done
[[ $headers -gt 0 && ${#compilers[@]} -gt 0 ]] || { echo "check_headers: nothing was checked"; exit 1; }
[[ $failed == 0 ]] && echo "headers: $headers compile alone with ${compilers[*]%:*}"
exit $failed
