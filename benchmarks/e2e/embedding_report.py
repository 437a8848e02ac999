"""Everything that benchmarks/results/embedding-*.md says, measured by one command.

Usage: python -m benchmarks.e2e.embedding_report [--name FILE] [--rounds 12] [--runs 5]

Builds the example service against the package of this environment's mmcore and the program of
benchmarks.e2e.native_runner, and then measures one after the other: what the service links and its
sizes, start and memory beside a Python process, the load test, tokens a second of the native
runner, and the wheels that lie in dist/. Writes FILE.md and FILE.json in benchmarks/results. Takes
four minutes on two cores, without the builds; the machine should do nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.e2e.embedding import closure, measure_python, measure_service
from benchmarks.harness import cpu_name

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BUILD = ROOT / "build" / "embedding_report"
LEAVES = ("in the head", "in the body", "after the body", "in the answer")


def run(*command: str | Path) -> str:
    """Run a command and give what it printed; what went wrong is shown."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def build(given: Path | None) -> tuple[Path, Path]:
    """Build the service and the native runner's program; give both."""
    package = given or Path(run(sys.executable, "-m", "mmcore", "--cmake-dir").strip())
    service = BUILD / "service"
    run(
        "cmake", "-S", "examples/embed_cpp", "-B", service, "-G", "Ninja", f"-Dmmcore_DIR={package}"
    )
    run("cmake", "--build", service)
    run("cmake", "--preset", "release")
    run("cmake", "--build", "--preset", "release", "--target", "mmcore_bench_native_runner")
    native = ROOT / "build" / "release" / "benchmarks" / "cpp" / "mmcore_bench_native_runner"
    return service / "mmcore_service", native


def start(program: Path, runs: int) -> dict[str, float]:
    """Measure from the start of the process to the first token, in turns; give medians."""
    services, pythons = [], []
    for _ in range(runs):
        services.append(measure_service(program))
        pythons.append(measure_python())
    listens, first, memory = (statistics.median(v) for v in zip(*services, strict=True))
    python_first, python_memory = (statistics.median(v) for v in zip(*pythons, strict=True))
    return {
        "service_listens_s": round(listens, 3),
        "service_first_token_s": round(first, 3),
        "service_resident_mb": round(memory, 1),
        "python_first_token_s": round(python_first, 2),
        "python_resident_mb": round(python_memory, 0),
    }


def load(program: Path, rounds: int) -> dict[str, Any]:
    """Run the whole load test: 200 clients, then 1,000 that leave, in each round."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "load.json"
        test = ROOT / "tests" / "embed" / "service" / "load_test.py"
        run(sys.executable, test, program, "--rounds", str(rounds), "--json", figures)
        result: dict[str, Any] = json.loads(figures.read_text())
    return result


def native_rates(program: Path) -> list[dict[str, Any]]:
    """Measure tokens a second of the native runner and of Python, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "native.json"
        run(sys.executable, "-m", "benchmarks.e2e.native_runner", program, "--json", rows)
        stored: dict[str, Any] = json.loads(rows.read_text())
    found: list[dict[str, Any]] = stored["rows"]
    return found


def wheels() -> list[tuple[str, float, float]]:
    """Name the wheels in dist/, their sizes in MB, and those without the checkpoint."""
    found = []
    for path in sorted((ROOT / "dist").rglob("*.whl")):
        with zipfile.ZipFile(path) as archive:
            inside = [i.compress_size for i in archive.infolist() if "/assets/" in i.filename]
        whole = path.stat().st_size
        found.append((path.name, whole / 1e6, (whole - sum(inside)) / 1e6))
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Make a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def report(figures: dict[str, Any]) -> str:
    """Write the page."""
    begin, links = figures["start"], figures["links"]
    ours = {name: size for name, size in links.items() if "mmcore" in name}
    together = [r for r in figures["load"]["rounds"] if r["what"] == "together"]
    leaving = [r for r in figures["load"]["rounds"] if r["what"] == "disconnects"]
    asked = sum(r["clients"] for r in together)
    right = sum(r["right"] for r in together)
    left = sum(r.get(place, 0) for r in leaving for place in LEAVES)
    memory = ", ".join(str(r["resident_mb"]) for r in leaving)
    metrics = figures["load"]["metrics"]
    gone = [r["leaks"] for r in figures["load"]["rounds"] if any(r["leaks"].values())]
    later = together[1:] or together
    wheel_rows = [
        (name, f"{whole:.1f} MB", f"{without:.1f} MB") for name, whole, without in figures["wheels"]
    ]
    rate_rows = [
        (
            row["process"],
            f"{row['start_to_first_token_s']:.3f} s",
            f"{row['resident_mib']:.0f} MiB",
            f"{row['tokens_per_s_1']:,.0f}",
            f"{row['tokens_per_s_32']:,.0f}",
        )
        for row in figures["native_runner"]
    ]
    parts = [
        "# The engine inside a C++ service",
        f"`python -m benchmarks.e2e.embedding_report`, {figures['date']}: {figures['machine']}. "
        "The bundled LLaVA-1.5.",
        "## What it is made of",
        "`ldd mmcore_service` (`examples/embed_cpp` against the wheel's package) lists "
        f"{figures['foreign']}. {sum(ours.values()) / 1e6:.1f} MB of program and mmcore:",
        table(["", "bytes"], [(f"`{name}`", f"{size:,}") for name, size in ours.items()]),
        "Besides: " + ", ".join(name for name in links if "mmcore" not in name) + ".",
        "From the start of the process to the first token of an answer about the bundled picture, "
        f"medians of {figures['runs']} runs in turns:",
        table(
            ["", "first token after", "resident memory then"],
            [
                (
                    "`mmcore_service`",
                    f"{begin['service_first_token_s']} s (it listens after "
                    f"{begin['service_listens_s']} s)",
                    f"{begin['service_resident_mb']:.0f} MB",
                ),
                (
                    "Python, `LLM` on the same checkpoint",
                    f"{begin['python_first_token_s']} s",
                    f"{begin['python_resident_mb']:.0f} MB",
                ),
            ],
        ),
        "## Under load",
        f"`tests/embed/service/load_test.py`, seed 0, a KV cache of 32 MB that the crowd fills, "
        f"{len(together)} rounds. First each of {together[0]['clients']} prompts is answered "
        "alone, by another process. Then, in each round:",
        f"- {together[0]['clients']} clients ask at the same moment, every second one for a "
        f"stream. **{right:,} of {asked:,} answers are those of their prompts.** The first time, "
        f"with nothing cached, it took {together[0]['seconds']} s, the median answer "
        f"{together[0]['median_latency_s']} s; later {min(r['seconds'] for r in later)} to "
        f"{max(r['seconds'] for r in later)} s.\n"
        f"- {leaving[0]['clients']:,} clients come together, of which three in four leave: within "
        "the head of their request, within the body, after it, or while the answer comes: "
        f"{left:,} in all. {sum(r['right'] for r in leaving):,} stayed, and all got their "
        f"prompt's answer. {metrics['requests_aborted_total']:,.0f} requests were aborted.",
        f"After {len(together) + len(leaving) - len(gone)} of {len(together) + len(leaving)} "
        "phases: 0 blocks in use, 0 pinned pictures, nothing running or waiting, no failed "
        "request. After SIGTERM: 0 unfinished, exit status 0. Resident memory after each round, "
        f"in MB: {memory}.",
        "## The native runner",
        "`benchmarks.e2e.native_runner`, float32, both processes in turns, the same tokens first:",
        table(
            [
                "process",
                "first token",
                "resident",
                "tokens/s, 1 request",
                "tokens/s, 32 requests",
            ],
            rate_rows,
        ),
    ]
    if wheel_rows:
        parts += [
            "## Wheels",
            table(["", "with the checkpoint", "without"], wheel_rows),
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Build, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    today = datetime.date.today().isoformat()
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", cpu_name().lower())).strip("-")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--name", default=f"embedding-{slug}-{cores}-cores-{today}")
    parser.add_argument("--package", type=Path, help="folder of mmcoreConfig.cmake; else mmcore's")
    parser.add_argument("--rounds", type=int, default=12, help="of the load test")
    parser.add_argument("--runs", type=int, default=5, help="starts of each process")
    options = parser.parse_args()
    busy = os.getloadavg()[0]
    commit = run("git", "describe", "--always", "--dirty").strip()
    service, native = build(options.package)
    links = closure(service)
    foreign = [name for name in links if re.search(r"python|torch|cuda|cublas", name)]
    figures: dict[str, Any] = {
        "date": today,
        "machine": f"{cpu_name()}, {cores} cores, load {busy:.1f} before the builds, {commit}",
        "runs": options.runs,
        "links": links,
        "foreign": ", ".join(foreign) or "no Python, torch or CUDA",
        "start": start(service, options.runs),
        "load": load(service, options.rounds),
        "native_runner": native_rates(native),
        "wheels": wheels(),
    }
    target = RESULTS / options.name
    target.with_name(target.name + ".json").write_text(json.dumps(figures, indent=1) + "\n")
    target.with_name(target.name + ".md").write_text(report(figures))
    print(target.with_name(target.name + ".md"))


if __name__ == "__main__":
    main()
