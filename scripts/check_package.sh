#!/usr/bin/env bash
# Checks the C++ package as a host finds it: installs it, moves it, and builds programs against it in folders of their own.
#
#   check_package.sh [static] [shared] [wheel]
#
# What hosts say about the bundled picture is compared with Python's LLM; PYTHON names one that can import mmcore.
#
#   static   cmake --install of the build that the C++ tests use
#   shared   a build with BUILD_SHARED_LIBS of its own
#   wheel    what the mmcore of this environment's Python installed (python -m mmcore --cmake-dir)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$root/build/package
python=${PYTHON:-python}
# A host needs none of these; a configure step that asked for them would fail.
without=(-DCMAKE_DISABLE_FIND_PACKAGE_Python=ON -DCMAKE_DISABLE_FIND_PACKAGE_Python3=ON
  -DCMAKE_DISABLE_FIND_PACKAGE_Torch=ON -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON -DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON)

die() { printf 'check_package: %s\n' "$*" >&2; exit 1; }
quiet() { "$@" >"$work/log.txt" 2>&1 || { tail -n 40 "$work/log.txt" >&2; die "failed: $*"; }; }

# Puts the package of a build tree where it was not configured to go.
install_from() {
  local build=$1 place=$2
  quiet cmake --install "$build" --prefix "$work/first"
  mkdir -p "$place"
  mv "$work/first"/* "$place"
}

install_static() {
  quiet cmake --preset dev
  quiet cmake --build --preset dev --target mmcore_package
  install_from build/dev "$1"
}

install_shared() {
  quiet cmake -S . -B build/shared -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DMMCORE_CUDA=off
  quiet cmake --build build/shared --target mmcore_package
  install_from build/shared "$1"
}

# find_package refuses, and says the given words.
refuses() {
  local cmake_dir=$1 words=$2
  shift 2
  if cmake -S tests/embed/refused -B "$work/refused" -G Ninja -Dmmcore_DIR="$cmake_dir" "$@" >"$work/log.txt" 2>&1; then
    die "find_package accepted $*"
  fi
  # CMake breaks the lines of a message.
  tr -s ' \n' ' ' <"$work/log.txt" | grep -qF "$words" || { cat "$work/log.txt"; die "not said: $words"; }
  rm -rf "$work/refused"
}

check_cmake() {
  local name=$1 cmake_dir=$2 project
  refuses "$cmake_dir" "It has no component tensors" -DWANTED_VERSION=0.1 "-DWANTED_COMPONENTS=core;tensors"
  refuses "$cmake_dir" "are: core, kernels, native" -DWANTED_VERSION=0.1 "-DWANTED_COMPONENTS=tensors"
  refuses "$cmake_dir" 'is compatible with requested version "0.2"' -DWANTED_VERSION=0.2 -DWANTED_COMPONENTS=core
  refuses "$cmake_dir" 'is compatible with requested version "1"' -DWANTED_VERSION=1 -DWANTED_COMPONENTS=core
  for project in tests/embed tests/embed/c examples/embed_own_runner examples/embed_c; do
    [[ -f $project/CMakeLists.txt ]] || continue
    local build=$work/$name-${project//\//-}
    quiet cmake -S "$project" -B "$build" -G Ninja -Dmmcore_DIR="$cmake_dir" "${without[@]}" \
      -DEXPECTED="$work/expected" -DCHECKPOINT="$root/python/mmcore/assets/tiny_llava"
    quiet cmake --build "$build"
    ctest --test-dir "$build" --output-on-failure --no-tests=error >"$work/log.txt" ||
      { cat "$work/log.txt"; die "$project against $name"; }
    echo "$project: $(grep -E 'tests passed' "$work/log.txt")"
  done
}

check_pkg_config() {
  local lib_dir=$1 program=$work/pkg_config_program
  command -v pkg-config >/dev/null || { echo "pkg-config is not installed: its files are not checked"; return; }
  export PKG_CONFIG_PATH=$lib_dir/pkgconfig
  [[ $(pkg-config --modversion mmcore-core) == "$(sed -nE 's/^project\(mmcore VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)" ]] ||
    die "pkg-config gives version $(pkg-config --modversion mmcore-core)"
  # shellcheck disable=SC2046
  quiet "${CXX:-c++}" -std=c++20 tests/embed/main.cpp -o "$program" $(pkg-config --cflags --libs mmcore-kernels)
  LD_LIBRARY_PATH=$lib_dir "$program" >"$work/log.txt" || { cat "$work/log.txt"; die "$program failed"; }
  "$python" tests/embed/documented.py >"$work/documented.cpp"
  # shellcheck disable=SC2046
  quiet "${CXX:-c++}" -std=c++20 -Wall -Wextra -Werror -fsyntax-only "$work/documented.cpp" $(pkg-config --cflags mmcore-native)
}

# A Python model under a C++ engine, which needs the libraries of the Python package.
check_python_runner() {
  local build=$work/python_runner
  quiet cmake -S examples/embed_python -B "$build" -G Ninja -Dmmcore_DIR="$1" -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)"
  quiet cmake --build "$build"
  "$build/mmcore_embed_python" "$(command -v "$python")" "$root/python/mmcore/assets/tiny_llava" "$work/expected/picture.ppm" \
    2>"$work/log.txt" | diff - "$work/expected/ids.txt" || { cat "$work/log.txt"; die "examples/embed_python"; }
  echo "examples/embed_python: the same token ids"
}

# Links nothing but itself, the C++ runtime and the C library.
check_closure() {
  local file foreign
  for file in "$1"/libmmcore_*.so; do
    [[ -e $file ]] || continue
    foreign=$(ldd "$file" | awk '{print $1}' | grep -vE '^(linux-vdso|libmmcore_|libstdc\+\+|libgcc_s|libm\.|libc\.|/lib)' || true)
    [[ -z $foreign ]] || die "$file links $foreign"
  done
}

rm -rf "$work"
mkdir -p "$work/expected"
quiet "$python" tests/embed/expected.py "$work/expected"
for kind in "${@:-static}"; do
  begin=$SECONDS
  if [[ $kind == wheel ]]; then
    lib_dir=$("$python" -m mmcore --lib-dir)
    cmake_dir=$("$python" -m mmcore --cmake-dir)
  else
    place=$work/$kind
    "install_$kind" "$place"
    lib_dir=$(dirname "$(find "$place" -name pkgconfig)")
    cmake_dir=$lib_dir/cmake/mmcore
  fi
  check_closure "$lib_dir"
  check_cmake "$kind" "$cmake_dir"
  check_pkg_config "$lib_dir"
  [[ $kind != wheel ]] || check_python_runner "$cmake_dir"
  echo "package, $kind: as it should be ($((SECONDS - begin)) s)"
done
