"""The example service under many clients at once: answers, disconnects, leaks.

First each prompt is answered alone. Then all clients ask at once, and every answer must be the one
of its prompt; then again, while most of them leave at some point of their own choice.

Usage: load_test.py PROGRAM [--clients 200] [--disconnects 1000] [--rounds 3] [--seed 0]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from service_process import QUESTIONS, Service, draw, question


def make_prompts(count: int) -> list[dict[str, Any]]:
    """Make different prompts, each with a picture; five questions share one."""
    pictures = [draw(i) for i in range((count + 4) // 5)]
    return [
        question(QUESTIONS[i % 5], pictures[i // 5], return_token_ids=True) for i in range(count)
    ]


class Departures:
    """Counts the clients that are done with the service: each of them has made room in it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self) -> None:
        """Tell one who waits: there is room for one."""
        with self._changed:
            self._count += 1
            self._changed.notify()

    def count(self) -> int:
        """Give how many there were."""
        with self._changed:
            return self._count

    def wait_for_more_than(self, count: int) -> None:
        """Wait until there were more; at most as long as Retry-After says, a second."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > count, timeout=1)


departures = Departures()


def ask(service: Service, body: dict[str, Any]) -> tuple[list[int], int]:
    """Ask until the service has room; give the tokens and how often it had none."""
    refused = 0
    while True:
        before = departures.count()
        reply = service.post(body)
        if reply.status != 429:
            break
        refused += 1
        departures.wait_for_more_than(before)
    departures.add()
    if reply.status != 200:
        raise RuntimeError(f"HTTP {reply.status}: {reply.body}")
    return reply.token_ids, refused


def crowd(
    service: Service, prompts: list[dict[str, Any]], alone: list[list[int]], clients: int
) -> dict[str, Any]:
    """Let all clients ask at the same moment, every second one for a stream."""
    gate = threading.Barrier(clients)

    def client(index: int) -> tuple[bool, int, float]:
        prompt = index % len(prompts)
        gate.wait()
        begin = time.monotonic()
        tokens, refused = ask(service, {**prompts[prompt], "stream": bool(index % 2)})
        return tokens == alone[prompt], refused, time.monotonic() - begin

    begin = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(client, range(clients)))
    seconds = time.monotonic() - begin
    latencies = sorted(result[2] for result in results)
    return {
        "clients": clients,
        "right": sum(result[0] for result in results),
        "refused_at_first": sum(result[1] > 0 for result in results),
        "seconds": round(seconds, 2),
        "requests_per_second": round(clients / seconds, 1),
        "median_latency_s": round(latencies[clients // 2], 2),
        "slowest_s": round(latencies[-1], 2),
    }


def leave(service: Service, body: dict[str, Any], where: str, part: float) -> None:
    """Behave as a client that goes away at `where`; `part` in [0, 1) says how far into it."""
    data = json.dumps({**body, "ignore_eos": True, "max_tokens": 200}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=120) as connection:
        if where == "in the head":
            connection.sendall(head.encode()[: int(part * len(head))])
        elif where == "in the body":
            connection.sendall(head.encode() + data[: int(part * len(data))])
        else:
            connection.sendall(head.encode() + data)
            if where == "in the answer":
                for _ in range(1 + int(part * 30)):
                    if not connection.recv(64):
                        break


def disconnects(
    service: Service,
    prompts: list[dict[str, Any]],
    alone: list[list[int]],
    clients: int,
    seed: int,
) -> dict[str, Any]:
    """Let clients come together of which three in four leave; the others' answers are compared."""
    gate = threading.Barrier(clients)
    places = ("in the head", "in the body", "after the body", "in the answer", "in the answer")

    def client(index: int) -> str:
        draws = random.Random(seed * 1_000_003 + index)
        prompt = draws.randrange(len(prompts))
        stays, where, part = draws.random() < 0.25, draws.choice(places), draws.random()
        body = {**prompts[prompt], "stream": draws.random() < 0.7}
        gate.wait()
        if stays:
            return "right" if ask(service, body)[0] == alone[prompt] else "WRONG"
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            leave(service, body, where, part)
        departures.add()
        return where

    begin = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        results = Counter(pool.map(client, range(clients)))
    return {"clients": clients, "seconds": round(time.monotonic() - begin, 2), **results}


def settle(service: Service) -> dict[str, float]:
    """Wait until nothing runs any more; give the metrics of then.

    A bounded retry on that condition: the service has no event for it.
    """
    for _ in range(100_000):
        metrics = service.metrics()
        if metrics["requests_running"] + metrics["requests_waiting"] == 0:
            return metrics
    raise RuntimeError(f"requests are left: {metrics}")


def main() -> int:
    """Run the rounds; exit 1 at the first wrong answer or leak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    print(f"load test: seed {arguments.seed}", flush=True)
    figures: list[dict[str, Any]] = []
    prompts = make_prompts(arguments.clients)
    program = arguments.program.resolve()
    with Service(program) as service:
        alone = [ask(service, prompt)[0] for prompt in prompts]
    # With nothing in its caches, and a pool that the crowd fills: all of it is written in the first
    # round, so that memory that still grows after that would be a leak.
    with Service(program, "--kv-cache-mb", "32") as service:
        different = len({tuple(tokens) for tokens in alone})
        print(f"alone: {len(alone)} prompts, {different} different answers", flush=True)
        assert different > len(alone) // 20, "the answers do not tell the clients apart"
        for number in range(arguments.rounds):
            seed = arguments.seed * 1000 + number
            phases: dict[str, Callable[[], dict[str, Any]]] = {
                "together": partial(crowd, service, prompts, alone, arguments.clients),
                "disconnects": partial(
                    disconnects, service, prompts, alone, arguments.disconnects, seed
                ),
            }
            for name, phase in phases.items():
                result = phase()
                metrics = settle(service)
                leaks = {
                    gauge: metrics[gauge]
                    for gauge in (
                        "kv_blocks_used",
                        "encoder_entries_pinned",
                        "requests_failed_total",
                    )
                }
                result |= {"round": number, "what": name, "leaks": leaks}
                result["resident_mb"] = round(service.resident_bytes() / 2**20, 1)
                figures.append(result)
                print(json.dumps(result), flush=True)
                assert not any(leaks.values()), leaks
                assert "WRONG" not in result and result.get("right", 0) > 0, result
                assert name != "together" or result["right"] == result["clients"], result
        status, rest = service.terminate()
        assert status == 0 and "0 unfinished, 0 blocks in use, 0 pins" in rest, (status, rest)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rounds": figures, "metrics": metrics}, indent=1))
    print("load test: every answer belongs to its client, nothing leaked")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
