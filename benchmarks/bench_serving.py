"""`aegl serve` under load: clients that each send one picture after the other, for a minute.

    python benchmarks/bench_serving.py --weights best.onnx --images folder [--clients 16] [--seconds 60] [key=value ...]

Prints throughput, latency, the sizes of the batches that the server ran, its memory over time, and how it ended when
it was told to in the middle of the load. Further words are keys of `aegl serve`.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np


class Load:
    """Clients in threads; what they met."""

    def __init__(self, address: str, pictures: list[bytes], clients: int) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []
        self._address, self._pictures = address, pictures
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        """Until nobody listens any more."""
        connection = http.client.HTTPConnection(self._address, timeout=60)
        for turn in range(number, sys.maxsize):
            started = time.perf_counter()
            try:
                connection.request("POST", "/predict", self._pictures[turn % len(self._pictures)])
                answer = connection.getresponse()
                answer.read()
            except ConnectionRefusedError:
                self.outcomes["connection refused"] += 1
                return
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[f"broken: {type(error).__name__}"] += 1
                return
            self.outcomes[str(answer.status)] += 1
            if answer.status == 200:
                self.seconds.append(time.perf_counter() - started)


def figures(address: str) -> dict[str, float]:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


def batches(now: dict[str, float]) -> dict[str, int]:
    """Runs by number of images, from the cumulative buckets."""
    edges = [(name, value) for name, value in now.items() if name.startswith("aegl_batch_size_bucket")]
    counts, below = {}, 0.0
    for name, value in edges:
        if value > below:
            counts[re.findall(r'le="([^"]+)"', name)[0].removesuffix(".0")] = int(value - below)
        below = value
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("keys", nargs="*")
    given = parser.parse_args()
    pictures = [path.read_bytes() for path in sorted(given.images.iterdir())[:64] if path.suffix in (".jpg", ".png")]
    command = [sys.executable, "-m", "aegl_cli", "serve", f"weights={given.weights}", "port=0", *given.keys]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert server.stderr is not None
    address = next(found[1] for line in server.stderr if (found := re.search(r"http://(\S+)", line)))
    threading.Thread(target=server.stderr.read, daemon=True).start()

    load = Load(address, pictures, given.clients)
    started, memory = time.perf_counter(), []
    while time.perf_counter() - started < given.seconds:
        time.sleep(given.seconds / 12)
        memory.append(figures(address)["process_resident_memory_bytes"] / 2**20)
    elapsed, answered, last = time.perf_counter() - started, len(load.seconds), figures(address)
    before = dict(load.outcomes)
    server.send_signal(signal.SIGTERM)
    code = server.wait(120)
    load.join()

    runs = last["aegl_batch_size_count"]
    p50, p95, p99 = np.percentile(load.seconds[:answered], [50, 95, 99]) * 1000
    print(f"{given.clients} clients, {elapsed:.0f} s: {answered} images, {answered / elapsed:.1f} per second")
    print(f"latency: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms; answers by status: {json.dumps(before)}")
    print(f"batches: {json.dumps(batches(last))}, {last['aegl_batch_size_sum'] / runs:.2f} images in a run")
    print(f"memory: {' '.join(f'{value:.0f}' for value in memory)} MiB")
    ended = {name: count - before.get(name, 0) for name, count in load.outcomes.items() if count > before.get(name, 0)}
    print(f"stopped in mid-load: exit code {code}; from then on {json.dumps(ended)}")


if __name__ == "__main__":
    main()
