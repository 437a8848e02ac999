#!/usr/bin/env bash
# Looks for what no quick suite finds, for MINUTES of wall time on two cores, and writes what it did
# to benchmarks/results/soak-<processor>-<date>-<minutes>min.md. The exit status is 1 if anything was found.
#
#   MINUTES=n scripts/soak.sh
#
#   first core    model-based operations, then simulated engines: the optimised build
#   second core   the same under the address and undefined-behaviour sanitizers, then whole requests
#                 through LLM on a tiny model; a third of the time each
#
# Before that, whatever the minutes, and left out by SANITIZERS=0, MUTATIONS=0, MATRIX=0:
#
#   the core's tests, the host's (misuse through both APIs) and the native runner's under the address and
#   undefined-behaviour sanitizers and then under the thread sanitizer, and the example service likewise, with
#   200 clients and 1,000 that leave (scripts/check_sanitizers.sh says what is left out);
#   the mutations of tests/mutations; the whole product of the equality matrix.
#
# SEED (1) is the first seed, REQUESTS (500) the requests of one simulated engine.
set -uo pipefail
cd "$(dirname "$0")/.."
minutes=${MINUTES:-10}
seed=${SEED:-1}
requests=${REQUESTS:-500}
logs=build/logs/soak
mkdir -p "$logs"
rm -f "$logs"/*.txt "$logs"/failed
if ! [[ $minutes =~ ^[0-9]+$ && $minutes -gt 0 ]]; then
  echo "soak.sh: MINUTES is a whole number above zero, not '$minutes'" >&2
  exit 2
fi
seconds=$((minutes * 60))

build() { # build PRESET TARGET...
  local preset=$1
  shift
  cmake --preset "$preset" -B "build/$preset" >"$logs/build-$preset.log" 2>&1 &&
    cmake --build "build/$preset" --target "$@" >>"$logs/build-$preset.log" 2>&1 && return
  echo "soak.sh: the build with preset $preset failed, see $logs/build-$preset.log" >&2
  exit 1
}

run() { # run NAME COMMAND...
  local name=$1
  shift
  "$@" >"$logs/$name.txt" 2>"$logs/$name.err" || echo "$name" >>"$logs/failed"
  tail -n 3 "$logs/$name.txt"
}

mmsim() { echo "build/$1/tests/cpp/proof/mmcore_mmsim"; }
forever=1000000000000

build dev mmcore_mmsim
build asan mmcore_mmsim
if [[ ${SANITIZERS:-1} != 0 ]]; then
  run sanitizers env MMCORE_TEST_SEEDS=60 MMCORE_TEST_OPS=100000 "LOAD=--rounds 1" scripts/check_sanitizers.sh asan tsan
fi
if [[ ${MUTATIONS:-1} != 0 ]]; then run mutations python scripts/check_mutations.py; fi
if [[ ${MATRIX:-1} != 0 ]]; then
  run matrix env MMCORE_TEST_MATRIX=full python -m pytest -q tests/python/e2e/test_matrix.py
fi

{
  run operations "$(mmsim dev)" --operations "$forever" --seed "$seed" --seconds $((seconds / 2))
  run simulation "$(mmsim dev)" --seeds "$seed..$forever" --requests "$requests" --seconds $((seconds / 2))
} &
{
  run operations_asan "$(mmsim asan)" --operations "$forever" --seed "$seed" --seconds $((seconds / 3))
  run simulation_asan "$(mmsim asan)" --seeds "$seed..$forever" --requests "$requests" --seconds $((seconds / 3))
  run requests python scripts/soak_requests.py --requests "$forever" --seed "$seed" --seconds $((seconds / 3))
} &
wait

processor=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
slug=$(echo "${processor:-cpu}" | tr '[:upper:]' '[:lower:]' | sed -E 's/\((r|tm)\)//g; s/[^a-z0-9]+/-/g; s/^-|-$//g')
result=benchmarks/results/soak-$slug-$(date -u +%F)-${minutes}min.md
{
  echo "# Soak of $minutes minutes"
  echo
  echo "\`make soak MINUTES=$minutes\`, first seed $seed, on ${processor:-an unknown processor}, $(nproc) cores,"
  echo "$("${CXX:-c++}" -dumpfullversion) (GCC), $(git describe --always --dirty 2>/dev/null || echo 'no commit')."
  echo
  if [[ -f $logs/failed ]]; then echo "FAILED: $(tr '\n' ' ' <"$logs/failed")"; else echo "Nothing was found."; fi
  for name in sanitizers mutations matrix operations operations_asan simulation simulation_asan requests; do
    [[ -f $logs/$name.txt ]] || continue
    printf '\n## %s\n\n```\n' "${name//_/, }"
    cat "$logs/$name.txt"
    [[ -f $logs/failed ]] && grep -qx "$name" "$logs/failed" && tail -n 40 "$logs/$name.err"
    echo '```'
  done
} >"$result"
echo "soak.sh: $result"
[[ ! -f $logs/failed ]]
