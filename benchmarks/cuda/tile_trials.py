"""Times wgmma tiles that MMCORE_WGMMA_TILE picks, in turns with cuBLAS."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time

import torch
import torch.nn.functional as F

from mmcore._C import ops

TILES = ("256", "192", "192wide", "176wide", "144", "128pair", "128", "64")
samples: list[tuple[float, float, float]] = []


def watch() -> None:
    query = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw.instant", "--format=csv,noheader,nounits", "-lms", "10"]  # fmt: skip
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        watcher.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            try:
                clock, power = line.split(",")
                samples.append((time.perf_counter(), float(clock), float(power)))
            except ValueError:
                print("nvidia-smi:", line.strip())


watcher: list[subprocess.Popen[str]] = []


def capture(call, count):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    return graph


def variant(text: str) -> None:
    """'192wide:group=1024:blocks=128'."""
    name, *rest = text.split(":")
    os.environ["MMCORE_WGMMA_TILE"] = "" if name == "chosen" else str(TILES.index(name))
    for key in ("group", "blocks", "boxes"):
        os.environ.pop("MMCORE_WGMMA_" + key.upper(), None)
    for item in rest:
        key, value = item.split("=")
        os.environ["MMCORE_WGMMA_" + key.upper()] = value


def trial(title, tokens, n, k, act, scatter, names, slice_ms, rounds=4):
    sets = max(1, min(4, (160 << 20) // (2 * (tokens * (n + k) + n * k)) + 1))
    x = [torch.randn(tokens, k, device="cuda").bfloat16() for _ in range(sets)]
    w = [(torch.randn(n, k, device="cuda") / k**0.5).bfloat16() for _ in range(sets)]
    out = [
        torch.empty(tokens + tokens // 8, n, device="cuda", dtype=torch.bfloat16)
        for _ in range(sets)
    ]
    bias = torch.randn(n, device="cuda").bfloat16() if act or scatter else None
    rows = (torch.arange(tokens, device="cuda") + torch.arange(tokens, device="cuda") // 576 * 65) if scatter else None  # fmt: skip
    graphs, first = {}, None
    for name in names:
        turn = [0]

        def call(name=name, turn=turn):
            i = turn[0] = (turn[0] + 1) % sets
            if name == "cublas":
                F.linear(x[i], w[i])
            else:
                ops.linear(x[i], w[i], bias, out[i] if scatter else out[i][:tokens], rows, ops.ACTIVATIONS["gelu" if act else "none"], True)  # fmt: skip

        if name != "cublas":
            variant(name)
        call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(4):
            call()
        torch.cuda.synchronize()
        once = (time.perf_counter() - begin) / 4
        count = max(4, int(slice_ms * 1e-3 / once))
        wrong = ""
        if name != "cublas":
            for o in out:
                o.zero_()
            for _ in range(sets):
                call()
            if first is None:
                first = out[0].clone()
            elif not torch.equal(first, out[0]):
                wrong = f" differs by {(first.float() - out[0].float()).abs().max().item():.3g}"
        graphs[name] = (capture(call, count), count, [], [], wrong)
    events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for turn_ in range(rounds + 1):
        for name, (graph, count, times, clocks, _) in (
            list(graphs.items()) if turn_ % 2 else list(graphs.items())[::-1]
        ):
            started = time.perf_counter()
            events[0].record()
            graph.replay()
            events[1].record()
            torch.cuda.synchronize()
            ended = time.perf_counter()
            if turn_ > 0:
                times.append(events[0].elapsed_time(events[1]) * 1e3 / count)
                late = started + 0.6 * (ended - started)
                clocks += [s for s in samples if late < s[0] <= ended]
    base = statistics.median(graphs["cublas"][2])
    for name, (_, count, times, clocks, wrong) in graphs.items():
        us = statistics.median(times)
        seen = ""
        if clocks:
            seen = f" {statistics.mean(c[1] for c in clocks):5.0f} MHz {statistics.mean(c[2] for c in clocks):4.0f} W ({len(clocks)})"
        print(
            f"{title:10} {name:32} {us:8.1f} us {2e-6 * tokens * n * k / us:4.0f} TF {base / us:5.3f} {min(times):8.1f}{seen}{wrong}",
            flush=True,
        )
    del graphs
    torch.cuda.empty_cache()


def names_of_rival(shapes):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        for tokens, n, k in shapes:
            x = torch.randn(tokens, k, device="cuda").bfloat16()
            w = torch.randn(n, k, device="cuda").bfloat16()
            torch.cuda.synchronize()
            F.linear(x, w)
            torch.cuda.synchronize()
    for event in seen.events():
        if (
            "gemm" in event.name
            or "nvjet" in event.name
            or "cutlass" in event.name
            or "splitK" in event.name
        ):
            print(event.name[:150])


SHAPES = {
    "p1x32": (18432, 4096, 1024, True, False),
    "p2x32": (18432, 4096, 4096, False, True),
    "p1x8": (4608, 4096, 1024, True, False),
    "p2x8": (4608, 4096, 4096, False, True),
    "qkv512": (512, 12288, 4096, False, False),
    "o512": (512, 4096, 4096, False, False),
    "gateup512": (512, 22016, 4096, False, False),
    "down512": (512, 4096, 11008, False, False),
    "qkv2048": (2048, 12288, 4096, False, False),
}


def main() -> None:
    if sys.argv[1] == "profile":
        for name in ("p1x32", "p2x32"):
            tokens, n, k, act, scatter = SHAPES[name]
            x = torch.randn(tokens, k, device="cuda").bfloat16()
            w = torch.randn(n, k, device="cuda").bfloat16()
            out = torch.empty(tokens, n, device="cuda", dtype=torch.bfloat16)
            F.linear(x, w)
            for tile in ("192", "192:boxes=1"):
                variant(tile)
                ops.linear(x, w, None, out, None, ops.ACTIVATIONS["gelu" if act else "none"], True)
            torch.cuda.synchronize()
        return
    os.environ["MMCORE_WGMMA_SAY"] = "1"
    names_of_rival([s[:3] for s in SHAPES.values()])
    threading.Thread(target=watch, daemon=True).start()
    time.sleep(0.3)
    for argument in sys.argv[1:]:
        shape, slice_ms, names = argument.split("/")
        trial(shape, *SHAPES[shape], ["cublas", *names.split(",")], float(slice_ms))
    for process in watcher:
        process.terminate()


if __name__ == "__main__":
    main()
