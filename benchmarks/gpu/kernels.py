"""The operators around the network: NMS, RoIAlign forward and backward, masks as run lengths of the original image."""

from __future__ import annotations

import numpy as np
import torch
from section import Section, median_ms, open_section

from aegl.models.ops import nms_padded, roi_align_levels
from aegl.runtime.masks import paste_and_encode

STRIDES = [4, 8, 16, 32]


def boxes_of(section: Section, number: int) -> torch.Tensor:
    """Random boxes inside the image."""
    height, width = section.size
    corner = torch.rand(number, 2) * torch.tensor([0.7 * width, 0.7 * height])
    return torch.cat([corner, corner + 8 + torch.rand(number, 2) * 0.25 * height], 1)


def suppression(section: Section) -> None:
    """Of detections (many groups) and of proposals (five)."""
    for number, groups, kept in ((5000, section.classes, 300), (4800, 5, 1000)):
        count = 200 if section.smoke else number
        boxes = boxes_of(section, count)[None].to(section.device)
        scores = torch.rand(1, count, device=section.device)
        of = torch.randint(0, groups, (1, count), device=section.device)
        setting = f"nms, {count} boxes in {groups} groups"
        with section.attempt(setting):
            times = section.seconds(lambda b=boxes, s=scores, g=of, k=kept: nms_padded(b, s, g, 0.5, k), 20)
            section.add(setting, ms=median_ms(times))


def pooling(section: Section) -> None:
    """Of the regions of eight images for the box head, and of 128 foreground ones each for the mask head."""
    images, channels = (1, 16) if section.smoke else (8, 256)
    height, width = section.size
    for dtype in (torch.float32, torch.bfloat16):
        shapes = [(images, channels, height // stride, width // stride) for stride in STRIDES]
        features = [torch.randn(s, device=section.device, dtype=dtype, requires_grad=True) for s in shapes]
        for per_image, side in ((512, 7), (128, 14)):
            count = images * per_image
            rois = torch.cat([torch.arange(images).repeat_interleave(per_image)[:, None], boxes_of(section, count)], 1)
            rois = rois.to(section.device)
            levels = torch.randint(0, len(STRIDES), (count,), device=section.device)
            name = f"roi_align {count} regions {side}x{side}, {str(dtype).removeprefix('torch.')}"

            def forward(f=features, r=rois, to=levels, s=side) -> torch.Tensor:
                return roi_align_levels(f, r, to, STRIDES, s)

            with section.attempt(name):
                section.add(f"{name}, forward", ms=median_ms(section.seconds(forward, 10)))
                both = section.seconds(lambda run=forward: run().sum().backward(), 10)
                section.add(f"{name}, forward and backward", ms=median_ms(both))


def masks(section: Section) -> None:
    """On the CPU, as inference does it."""
    rng = np.random.default_rng(0)
    number = 10 if section.smoke else 300
    values = rng.random((number, 28, 28), dtype=np.float32)
    boxes = boxes_of(section, number).numpy()
    with section.attempt("masks"):
        times = section.seconds(lambda: paste_and_encode(values, boxes, *section.size), 5, warmup=1)
        section.add(f"{number} masks to run lengths, on the CPU", ms=median_ms(times))


def main() -> None:
    """Run the section."""
    section = open_section(__doc__)
    suppression(section)
    pooling(section)
    masks(section)


if __name__ == "__main__":
    main()
