#!/usr/bin/env bash
# Builds a wheel into dist/ and gives it the manylinux tag that it deserves.
#
#   make_wheel.sh cpu
#   make_wheel.sh cuda [ARCHITECTURES]   into dist/cuda; as in "80-real;90a-real", else all of cmake/MmcoreCuda.cmake
#
# The tag says the oldest C library and C++ runtime that it runs with, which follow from the machine that builds:
# Debian 12 gives manylinux_2_35. For older systems build in an older image (pyproject.toml, [tool.cibuildwheel]).
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-cpu}
options=() # spelt out: pip had no -C before 23.1, and Debian 12 has 23.0
out=dist
case $kind in
  cpu) options+=(--config-settings=cmake.define.MMCORE_CUDA=off) ;;
  cuda)
    out=dist/cuda
    CUDACXX=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
    export CUDACXX
    [[ -x $CUDACXX ]] || { echo "no nvcc on this machine: there is nothing to build a CUDA wheel with" >&2; exit 1; }
    # The build tag keeps it apart from the CPU wheel of the same version.
    version=$("$CUDACXX" --version | sed -nE 's/.*release ([0-9]+)\..*/\1/p')
    options+=(--config-settings=cmake.define.MMCORE_CUDA=on --config-settings=build-dir=build/wheel-cuda
              --config-settings=wheel.build-tag="1cuda$version")
    [[ -z ${2:-} ]] || options+=(--config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$2")
    ;;
  *) echo "usage: make_wheel.sh cpu | cuda [ARCHITECTURES]" >&2; exit 2 ;;
esac

built=build/built-wheel-$kind
rm -rf "$built"
mkdir -p "$out"
rm -f "$out"/mmcore-*.whl
python -m pip wheel --quiet --no-build-isolation --no-deps "${options[@]}" --wheel-dir "$built" .
if python -c 'import auditwheel' 2>/dev/null; then
  # Our own libraries lie in the wheel already, where the extension finds them.
  python -m auditwheel repair --exclude 'libmmcore_*.so*' --wheel-dir "$out" "$built"/*.whl >"$built/auditwheel.txt" 2>&1 ||
    { cat "$built/auditwheel.txt" >&2; exit 1; }
else
  echo "auditwheel is not installed: the wheel keeps the tag of this machine alone"
  cp "$built"/*.whl "$out"
fi
ls -l "$out"/mmcore-*.whl | awk '{printf "%s: %.1f MB\n", $NF, $5 / 1e6}'
