#!/usr/bin/env bash
# Formats C++, CUDA and Python in place; with --check it only reports and exits 1 on a difference.
set -euo pipefail
cd "$(dirname "$0")/.."
check=${1:-}
[[ -z $check || $check == --check ]] || { echo "usage: format.sh [--check]" >&2; exit 2; }

clang_format=(-i)
ruff_format=()
if [[ -n $check ]]; then
  clang_format=(--dry-run -Werror)
  ruff_format=(--check --quiet --diff)
fi

folders=()
for folder in bindings cpp cuda tests benchmarks examples; do
  [[ -d $folder ]] && folders+=("$folder")
done
find "${folders[@]}" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
  xargs -0 -r clang-format "${clang_format[@]}"
ruff format "${ruff_format[@]}" .
