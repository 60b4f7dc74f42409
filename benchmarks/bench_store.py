"""Seconds and memory of building and reopening the annotation store of a file as large as LVIS v1 train.

    python benchmarks/bench_store.py                      # writes such a file (1 GB) first, and deletes it
    python benchmarks/bench_store.py --images 2000
    python benchmarks/bench_store.py --file lvis_v1_train.json

Each step runs in a process of its own. Peak memory is the largest resident set; it contains pages of the mapped files,
which the system can take back at any time, so the largest private memory stands beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from make_annotations import FULL_IMAGES, make


def build(file: Path, cache: Path) -> str:
    """First use of a file."""
    from aegl.data.build import build_store

    store = build_store(file, cache_dir=cache)
    return f"{len(store)} images, {store.num_annotations} annotations, {store.num_classes} classes"


def reopen(file: Path, cache: Path) -> str:
    """Any later use."""
    from aegl.data.build import build_store

    store = build_store(file, cache_dir=cache)
    return f"last annotation of {len(store.segmentation(store.num_annotations - 1) or [])} polygons"


def private_megabytes(pid: int | str = "self") -> float:
    """Memory that no other process shares: written pages, and file pages that nobody else has mapped."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_")) / 1024


def written_megabytes(pid: int | str = "self") -> float:
    """Memory of its own that the system cannot take back."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_Dirty")) / 1024


def _measured(step: Callable[..., str], file: Path, cache: Path, results: Any) -> None:
    import aegl.data.build  # noqa: F401  (its import is no part of the step)

    largest, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            largest[0] = max(largest[0], written_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    text = step(file, cache)
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results.put((seconds, peak, max(largest[0], written_megabytes()), text))


def measured(step: Callable[..., str], file: Path, cache: Path) -> float:
    """Run a step in a fresh process and print what it took."""
    context = mp.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measured, args=(step, file, cache, results))
    process.start()
    seconds, peak, private, text = results.get()
    process.join()
    print(f"{step.__name__:<8}{seconds:8.2f} s, peak {peak:6.0f} MB resident, {private:6.0f} MB private   ({text})")
    return float(seconds)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=FULL_IMAGES)
    parser.add_argument("--file", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = args.file or Path(folder) / "annotations.json"
        if not args.file:
            make(file, args.images)
        print(f"{file.name}: {file.stat().st_size / 1e6:.0f} MB")
        cache = Path(folder) / "cache"
        measured(build, file, cache)
        size = sum(path.stat().st_size for path in cache.rglob("*.npy"))
        print(f"store: {size / 1e6:.0f} MB on disk")
        for _ in range(3):
            measured(reopen, file, cache)


if __name__ == "__main__":
    main()
