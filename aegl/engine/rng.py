"""The state of every global random generator, as tensors that a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

RngState = dict[str, Tensor]
"""``torch`` and ``cuda`` uint8 (``cuda`` empty without a GPU), ``numpy`` and ``python`` float64."""


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed Python, NumPy and PyTorch; processes of different ``rank`` draw different numbers."""
    own = (seed + 1_000_003 * rank) % 2**32
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)


def get_state(device: torch.device) -> RngState:
    """The generators' present state; that of CUDA belongs to ``device``."""
    legacy: Any = np.random.get_state(legacy=True)
    _, keys, position, has_gauss, gauss = legacy
    version, words, next_gauss = random.getstate()
    # Integers below 2**53 are exact in float64, so one dtype holds words, positions and cached normal draws.
    numpy_state = torch.tensor([*keys.tolist(), position, has_gauss, gauss], dtype=torch.float64)
    cached = [next_gauss is not None, next_gauss or 0.0]
    python_state = torch.tensor([version, *words, *cached], dtype=torch.float64)
    on_cuda = device.type == "cuda"
    cuda = torch.cuda.get_rng_state(device) if on_cuda else torch.empty(0, dtype=torch.uint8)
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy_state, "python": python_state}


def set_state(state: RngState, device: torch.device) -> None:
    """Inverse of :func:`get_state`. A CUDA state is ignored on a CPU and the other way round."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and len(state["cuda"]):
        torch.cuda.set_rng_state(state["cuda"], device)
    *keys, position, has_gauss, gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys).astype(np.uint32), int(position), int(has_gauss), gauss))
    version, *words, has_cached, cached = state["python"].tolist()
    random.setstate((int(version), tuple(int(w) for w in words), cached if has_cached else None))


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Leave the generators as they were: what runs inside cannot change the draws that follow."""
    state = get_state(device)
    try:
        yield
    finally:
        set_state(state, device)
