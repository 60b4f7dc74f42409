"""Memory that loader workers do not share, over epochs through a data set of the size of LVIS v1 train.

    python benchmarks/bench_loader_memory.py                 # writes such a file (1 GB) first, and deletes it
    python benchmarks/bench_loader_memory.py --images 2000

Every worker reads boxes, labels and polygons of its images by way of the training data set itself, targets rasterised;
only the pictures are blank and the network input is small, as decoding pictures says nothing about annotations. Written
is memory that the system cannot take back (Private_Dirty); private adds pages of the mapped files that no other process
has mapped at that moment (Private_Clean), which it can.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_store import private_megabytes, written_megabytes
from make_annotations import FULL_IMAGES, make

from aegl.data.build import build_store
from aegl.data.dataset import DetectionDataset
from aegl.data.loader import train_loader
from aegl.data.preprocess import Preprocess
from aegl.data.samplers import EpochSampler, RepeatFactors
from aegl.data.transforms import TrainTransform

SIDE = 32
BATCH = 32


class BlankImages(DetectionDataset):
    """Images of the right size with nothing on them."""

    def _load(self, index: int) -> np.ndarray:
        height, width = (int(side) for side in self.store.image_sizes[index])
        return np.zeros((height, width, 3), dtype=np.uint8)


def children(pid: int) -> list[int]:
    """Worker processes."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=FULL_IMAGES)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = args.file or Path(folder) / "annotations.json"
        if not args.file:
            make(file, args.images)
        store = build_store(file, cache_dir=Path(folder) / "cache")
        sampler = EpochSampler(RepeatFactors.uniform(len(store)), BATCH)
        preprocess = Preprocess(imgsz=SIDE, max_size=2 * SIDE, stride=32, pad_value=(0, 0, 0))
        dataset = BlankImages(store, preprocess, transform=TrainTransform((SIDE,), 0.5), mask_size=14)
        steps = args.epochs * len(store) // BATCH
        peak_written = peak_private = 0.0
        began = time.perf_counter()
        print(f"{len(store)} images, {store.num_annotations} annotations, {args.workers} workers; megabytes in all:")
        for step, _ in enumerate(train_loader(dataset, sampler, args.workers), start=1):
            if step == steps or step % max(steps // (4 * args.epochs), 1) == 0:
                workers = children(os.getpid())
                written, private = (sum(map(of, workers)) for of in (written_megabytes, private_megabytes))
                peak_written, peak_private = max(peak_written, written), max(peak_private, private)
                epoch = step * BATCH / len(store)
                print(f"  epoch {epoch:4.2f}: written {written:6.0f}, private {private:6.0f}", flush=True)
            if step == steps:
                break
        seconds = time.perf_counter() - began
        print(f"largest: written {peak_written:.0f} MB, private {peak_private:.0f} MB; {seconds:.0f} s")


if __name__ == "__main__":
    main()
