"""Images per second of the training loader, stage by stage, and beside torchvision's usual way.

    python benchmarks/bench_loader.py --images images --annotations train.json
    python benchmarks/bench_loader.py --images images --annotations train.json --imgsz 800 1333 --workers 0 1 2

Prints Markdown. The stages are timed in one process on one core. torchvision's way is CocoDetection with the transforms
v2 (decode, masks of the image's size, flip) and its detectors' own resizing and padding, all in the worker. Waiting
workers cost nothing, so a GPU whose step of B images takes t seconds is kept busy by
B * (seconds per image and core) / t cores.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from aegl.data.annotated import annotated_image, annotated_objects
from aegl.data.aspect import aspect_groups
from aegl.data.build import build_store
from aegl.data.dataset import DetectionDataset, collate, resize_fast
from aegl.data.loader import train_loader
from aegl.data.masks import rasterize_in_boxes
from aegl.data.preprocess import Preprocess
from aegl.data.samplers import EpochSampler, Key, RepeatFactors
from aegl.data.store import AnnotationStore
from aegl.data.transforms import TrainTransform

MASK_SIZE = 56


def mean_seconds(calls: list[Callable[[], Any]]) -> tuple[float, list[Any]]:
    """Processor seconds per call, the best of three rounds, and the results."""
    rounds = []
    for _ in range(3):
        begin = time.process_time()
        results = [call() for call in calls]
        rounds.append(time.process_time() - begin)
    return min(rounds) / len(calls), results


def stages(store: AnnotationStore, dataset: DetectionDataset, count: int, batch: int) -> Iterator[tuple[str, float]]:
    """Seconds per image of each stage."""
    rows = range(min(count, len(store.image_ids)))
    preprocess = dataset.preprocess
    seconds, images = mean_seconds([lambda row=row: annotated_image(store, row) for row in rows])
    yield "decode (Pillow)", seconds
    sizes = [preprocess.target_size(*image.shape[:2]) for image in images]
    pairs = list(zip(images, sizes, strict=True))
    yield "resize (torch, as in training)", mean_seconds([lambda p=p: resize_fast(*p) for p in pairs])[0]
    yield "resize (Pillow, as in evaluation)", mean_seconds([lambda i=i: preprocess.resize(i) for i in images])[0]
    yield "objects and masks", mean_seconds([lambda row=row: _masks(store, row) for row in rows])[0]
    samples = [dataset[Key(0, row, row)] for row in rows]
    parts = [samples[k : k + batch] for k in range(0, len(samples), batch)]
    seconds, batches = mean_seconds([lambda part=part: collate(part, preprocess) for part in parts])
    yield "flip, padding, collate", seconds * len(parts) / len(rows)
    seconds, _ = mean_seconds([lambda b=b: pickle.dumps(b.images.numpy()) for b in batches])
    yield "transfer, if it were by copy", seconds * len(parts) / len(rows)
    yield (
        "all (one sample, collated)",
        mean_seconds([lambda row=row: collate([dataset[Key(0, row, row)]], preprocess) for row in rows])[0],
    )


def _masks(store: AnnotationStore, row: int) -> np.ndarray:
    objects = annotated_objects(store, row)
    return rasterize_in_boxes(objects.segmentations, objects.boxes, MASK_SIZE, store.image_sizes[row])


def rate(loader: Any, batches: int, batch: int) -> float:
    """Images per second of wall time, after the first two batches."""
    stream = iter(loader)
    for _ in range(2):
        next(stream)
    begin = time.perf_counter()
    for _ in itertools.islice(stream, batches):
        pass
    return batches * batch / (time.perf_counter() - begin)


def torchvision_loader(images: Path, annotations: Path, imgsz: int, max_size: int, batch: int, workers: int) -> Any:
    """torchvision's reference recipe for Mask R-CNN, with the model's own transform in the worker."""
    augment = v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(0.5), v2.ToDtype(torch.float32, scale=True)])
    with contextlib.redirect_stdout(None):  # pycocotools reports its progress
        raw = CocoDetection(str(images), str(annotations), transforms=augment)
    dataset = wrap_dataset_for_transforms_v2(raw, target_keys=["boxes", "labels", "masks"])
    transform = GeneralizedRCNNTransform(imgsz, max_size, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    def padded(samples: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> Any:
        kept = [(image, target) for image, target in samples if "boxes" in target]
        image_list, targets = transform([image for image, _ in kept], [target for _, target in kept])
        return image_list.tensors, targets

    shuffled = torch.Generator().manual_seed(0)
    return DataLoader(
        dataset, batch, shuffle=True, num_workers=workers, collate_fn=padded, generator=shuffled, drop_last=True
    )


def padding_share(store: AnnotationStore, preprocess: Preprocess, batch: int, *, grouped: bool) -> float:
    """Share of the pixels of three epochs' batches that is padding."""
    groups = aspect_groups(store.image_sizes) if grouped else None
    sampler = EpochSampler(RepeatFactors.uniform(len(store.image_ids)), batch, groups=groups)
    inside = canvas = 0
    for keys in itertools.islice(sampler.batches(), max(1, 3 * len(store.image_ids) // batch)):
        sizes = [preprocess.target_size(*store.image_sizes[key.image].tolist()) for key in keys]
        inside += sum(height * width for height, width in sizes)
        canvas += len(sizes) * math.prod(preprocess.canvas_size(sizes))
    return 1 - inside / canvas


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO or LVIS JSON")
    parser.add_argument("--imgsz", type=int, nargs=2, default=(800, 1333), help="short and largest long side")
    parser.add_argument("--workers", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--count", type=int, default=64, help="images per stage")
    parser.add_argument("--batches", type=int, default=12, help="batches per loader")
    args = parser.parse_args()
    torch.set_num_threads(1)
    preprocess = Preprocess(*args.imgsz, stride=32, pad_value=(124, 116, 104))
    with tempfile.TemporaryDirectory() as cache:
        store = build_store(args.annotations, image_dirs=[args.images], cache_dir=cache)
        dataset = DetectionDataset(
            store, preprocess, transform=TrainTransform((args.imgsz[0],), 0.5), mask_size=MASK_SIZE
        )
        print("| stage, one core | ms per image | images/s |\n|---|---|---|")
        for name, seconds in stages(store, dataset, args.count, args.batch):
            print(f"| {name} | {seconds * 1e3:.2f} | {1 / seconds:.0f} |", flush=True)
        print("\n| workers | aegl, images/s | torchvision, images/s |\n|---|---|---|")
        for workers in args.workers:
            sampler = EpochSampler(
                RepeatFactors.uniform(len(store.image_ids)), args.batch, groups=aspect_groups(store.image_sizes)
            )
            ours = rate(train_loader(dataset, sampler, workers), args.batches, args.batch)
            other = torchvision_loader(args.images, args.annotations, *args.imgsz, args.batch, workers)
            theirs = rate(other, args.batches, args.batch)
            print(f"| {workers} | {ours:.0f} | {theirs:.0f} |", flush=True)
        print("\n| batch | padding, ungrouped | padding, aspect_grouping |\n|---|---|---|")
        for batch in sorted({2, 4, args.batch, 16}):
            plain, grouped = (padding_share(store, preprocess, batch, grouped=g) for g in (False, True))
            print(f"| {batch} | {plain:.1%} | {grouped:.1%} |")
        print("\nCores for a GPU step of t seconds: batch x seconds per image and core (stage `all`) / t.")


if __name__ == "__main__":
    main()
