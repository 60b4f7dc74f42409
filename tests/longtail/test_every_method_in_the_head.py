"""Every method of ``cfg/method`` in a box head: odd batches, and several processes that agree with one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from aegl.config import load_config, shipped
from aegl.config.fields import part_sections
from aegl.longtail.parts import build_parts
from aegl.longtail.statistics import ClassStatistics
from aegl.models.box_head import BoxHead
from aegl.models.roi_sampler import SampledRegions
from aegl.types import Targets

METHODS = shipped.available("method")
CLASSES, IMAGES, OBJECTS, PER_IMAGE = 6, 4, 3, 12
SIZE = (64, 64)

LOCAL = {
    "acsl": "draws rows on each process",
    "bags": "draws rows on each process and divides by those drawn",
    "droploss": "draws terms by the share of low-frequency labels of its process",
    "efl": "divides by the foreground of its process",
    "eql_softmax": "draws terms on each process",
    "fbs_aegl": "draws terms by the share of low-frequency labels of its process",
    "fbs_aegl_gol": "draws terms by the share of low-frequency labels of its process",
    "federated": "draws classes on each process",
    "focal": "divides by the foreground of its process",
    "gol": "draws terms by the share of low-frequency labels of its process",
    "ldam": "divides by the class weights of the rows of its process",
    "loce": "recalls features of the common memory on each process by itself",
    "rog": "ranks the regions of its process among themselves",
    "simcal": "draws background regions on each process",
}
"""Methods whose gradient on two processes is, as published, not that of one process with all images, and why."""


def statistics() -> ClassStatistics:
    counts = np.array([3, 8, 40, 90, 700, 5000])
    return ClassStatistics(counts, counts, 6000, np.array([0, 0, 1, 1, 2, 2]))


def head_of(method: str) -> BoxHead:
    config = load_config({"method": method})
    parts = build_parts(statistics(), {name: getattr(config, name) for name in part_sections()})
    torch.manual_seed(0)
    head = BoxHead(8, 16, parts, classifier=config.box.classifier, temperature=config.box.temperature)
    head.train()
    head.step_begin(0.9, 1.5)
    return head


def scene(labels: Tensor, images: int = IMAGES) -> tuple[SampledRegions, Targets]:
    """Regions with the given labels, ``R`` of them spread over the images; foreground matched to an object."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(images, OBJECTS, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 10 + 20 * torch.rand(images, OBJECTS, 2, generator=generator)], dim=2)
    image = torch.arange(len(labels)) * images // max(len(labels), 1)
    matched = torch.arange(len(labels)) % OBJECTS
    shift = torch.rand(len(labels), 4, generator=generator) * 4
    rois = torch.cat([image[:, None].float(), boxes[image, matched] + shift], dim=1)
    truth = torch.randint(0, CLASSES, (images, OBJECTS), generator=generator)
    focus = truth[:, 0]
    masks = torch.zeros(images, OBJECTS, 4, 4, dtype=torch.uint8)
    targets = Targets(boxes, truth, masks, torch.full((images,), OBJECTS), focus=focus)
    return SampledRegions(rois, labels, torch.where(labels < CLASSES, matched, 0)), targets


def pool(rois: Tensor) -> Tensor:
    """Features that depend on the place alone."""
    weight = torch.linspace(-0.3, 0.4, 32).view(4, 8)
    return torch.sin(rois[:, 1:] @ weight)[:, :, None, None]


def step(head: BoxHead, regions: SampledRegions, targets: Targets) -> Tensor:
    terms = head.losses(regions, targets, pool, SIZE)
    return torch.stack(list(terms.values())).sum()


ODD_BATCHES = {
    "no region": torch.zeros(0, dtype=torch.int64),
    "background only": torch.full((24,), CLASSES),
    "foreground only": torch.arange(24) % CLASSES,
    "one class": torch.zeros(24, dtype=torch.int64),
    "one region": torch.tensor([2]),
}


@pytest.mark.parametrize("labels", ODD_BATCHES.values(), ids=ODD_BATCHES.keys())
@pytest.mark.parametrize("method", METHODS)
def test_an_odd_batch_gives_finite_losses_and_gradients(method: str, labels: Tensor) -> None:
    head = head_of(method)
    regions, targets = scene(labels)
    for _ in range(3):  # the second time with state that the first left
        head.zero_grad()
        total = step(head, regions, targets)
        total.backward()
        assert total.isfinite()
        gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(value.isfinite().all() for value in head.state_dict().values())


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_any_logits_are_probabilities(method: str) -> None:
    head = head_of(method).eval()
    logits = torch.randn(50, head.loss.num_logits) * torch.logspace(-2, 4, 50)[:, None]
    scores = head.scores(logits)
    assert scores.shape == (50, CLASSES)
    assert scores.isfinite().all() and (scores >= 0).all() and (scores <= 1 + 1e-6).all()


def train(head: BoxHead, images: slice, world: int) -> None:
    """Three steps of plain SGD on some of the images, gradients averaged over the processes."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        labels = torch.randint(0, CLASSES + 3, (IMAGES * PER_IMAGE,), generator=generator).clamp(max=CLASSES)
        regions, targets = scene(labels)
        mine = torch.arange(len(labels)).view(IMAGES, PER_IMAGE)[images].flatten()
        part = regions.take(mine)
        part = SampledRegions(part.rois - torch.tensor([images.start, 0.0, 0, 0, 0]), part.labels, part.matched)
        own = Targets(*(getattr(targets, name)[images] for name in ("boxes", "labels", "masks", "num_objects")))
        own.focus = targets.focus[images] if targets.focus is not None else None
        head.zero_grad()
        step(head, part, own).backward()
        with torch.no_grad():
            for parameter in head.parameters():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                if world > 1:
                    dist.all_reduce(gradient)
                parameter -= 0.1 * gradient / world


def run_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    states: dict[str, dict[str, Tensor]] = {}
    for method in METHODS:
        head = head_of(method)
        train(head, slice(2 * rank, 2 * rank + 2), 2)
        states[method] = head.state_dict()
    torch.save(states, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """The states of both processes after training, by method."""
    folder = tmp_path_factory.mktemp("ranks")
    workers = [subprocess.Popen([sys.executable, __file__, str(rank), str(folder)]) for rank in range(2)]
    assert [worker.wait(timeout=200) for worker in workers] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_hold_the_same_state(ranks: list[Any], method: str) -> None:
    first, second = (states[method] for states in ranks)
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert [name for name in differing if "memory" not in name] == []


@pytest.mark.parametrize("method", [method for method in METHODS if method not in LOCAL])
def test_two_processes_learn_what_one_does(ranks: list[Any], method: str) -> None:
    alone = head_of(method)
    train(alone, slice(0, IMAGES), 1)
    for name, value in alone.state_dict().items():
        if "memory" not in name:
            torch.testing.assert_close(ranks[0][method][name], value, rtol=1e-4, atol=1e-6, msg=f"{method}: {name}")


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), Path(sys.argv[2]))
