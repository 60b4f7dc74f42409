"""Pasting and run-length encoding an image's masks: aegl against torchvision's paste with pycocotools' encode.

python benchmarks/bench_masks.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_utils
from torchvision.models.detection.roi_heads import paste_masks_in_image

from aegl.runtime.masks import paste_and_encode

SIDE = 28


def blobs(rng: np.random.Generator, count: int) -> np.ndarray:
    """``[count, SIDE, SIDE]`` float32 probabilities: soft ellipses, somewhat rough, as a mask head gives them."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    a, b = rng.uniform(0.25, 0.55, (2, count, 1, 1))
    logits = 12 * (1 - np.sqrt((x / a) ** 2 + (y / b) ** 2)) + rng.normal(0, 0.5, (count, SIDE, SIDE))
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def boxes(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """``[count, 4]`` x1 y1 x2 y2 of all sizes, up to half the image."""
    sides = np.exp(rng.uniform(np.log(8), np.log(height / 2), (count, 2)))
    corner = rng.random((count, 2)) * ([width, height] - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def reference(masks: np.ndarray, boxes_orig: np.ndarray, height: int, width: int) -> list[dict[str, Any]]:
    """torchvision and pycocotools as in torchvision's own COCO evaluation."""
    probabilities = torch.from_numpy(masks)[:, None]
    pasted = paste_masks_in_image(probabilities, torch.from_numpy(boxes_orig).float(), (height, width))[:, 0] >= 0.5
    return [mask_utils.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in pasted]


def exact_reference(masks: np.ndarray, boxes_orig: np.ndarray, height: int, width: int) -> list[dict[str, Any]]:
    """The rule itself, pixel by pixel over the whole image: detectron2's `grid_sample` of the box, not rounded."""
    encoded = []
    for mask, (x1, y1, x2, y2) in zip(masks, boxes_orig, strict=True):
        x = (torch.arange(width, dtype=torch.float64) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(height, dtype=torch.float64) + 0.5 - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
        image = torch.nn.functional.grid_sample(torch.from_numpy(mask).double()[None, None], grid, align_corners=False)
        encoded.append(mask_utils.encode(np.asfortranarray((image[0, 0] >= 0.5).numpy().astype(np.uint8))))
    return encoded


def best_of(times: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """Least seconds of several runs, and the result."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detections", type=int, default=300)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, size = np.random.default_rng(options.seed), (options.height, options.width)
    masks, where = blobs(rng, options.detections), boxes(rng, options.detections, *size)
    ours, encoded = best_of(options.times, lambda: paste_and_encode(masks, where, *size))
    theirs, others = best_of(options.times, lambda: reference(masks, where, *size))
    exact = exact_reference(masks, where, *size)
    print(f"{options.detections} masks at {size[0]}x{size[1]}, one thread, best of {options.times}")
    print(f"torchvision and pycocotools {1000 * theirs:8.0f} ms")
    print(f"aegl                        {1000 * ours:8.1f} ms   {theirs / ours:.0f} times faster")
    same = sum(a["counts"] == b["counts"] for a, b in zip(encoded, exact, strict=True))
    print(f"identical bytes to the same rule over the whole image with pycocotools' encode: {same} of {len(exact)}")
    iou = [float(mask_utils.iou([a], [b], [0])[0, 0]) for a, b in zip(encoded, others, strict=True)]
    print(f"IoU with torchvision's masks, which rounds boxes to whole pixels: {np.median(iou):.3f} in the middle")


if __name__ == "__main__":
    main()
