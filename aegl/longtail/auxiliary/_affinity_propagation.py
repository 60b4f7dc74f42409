"""Clusters without a given number: Clustering by Passing Messages Between Data Points (Frey and Dueck, 2007)."""

from __future__ import annotations

import torch
from torch import Tensor

_CONVERGED = 15
"""Rounds in which the exemplars must stay the same."""


def affinity_propagation(similarity: Tensor, *, damping: float = 0.5, rounds: int = 200) -> Tensor:
    """Clusters of points, each around one of them, its exemplar.

    How much a point wants to be an exemplar is the median similarity. Ties are broken by a tiny fixed noise, so that
    the same input gives the same clusters. Without any exemplar after all rounds, every point is a cluster.

    Args:
        similarity: ``[n, n]``, the larger the more alike; the diagonal is not read.
        damping: share of its old value that a message keeps, in [0.5, 1).
        rounds: most rounds.

    Returns:
        ``[n]`` int64: number of each point's cluster, from 0 on.
    """
    count = len(similarity)
    if count < 2:
        return torch.zeros(count, dtype=torch.int64, device=similarity.device)
    similarity = _prepared(similarity.double())
    responsibility, availability = torch.zeros_like(similarity), torch.zeros_like(similarity)
    exemplar, unchanged = torch.zeros(count, dtype=torch.bool, device=similarity.device), 0
    for _ in range(rounds):
        responsibility.lerp_(_responsibility(similarity, availability), 1 - damping)
        availability.lerp_(_availability(responsibility), 1 - damping)
        now = (responsibility + availability).diagonal() > 0
        unchanged = unchanged + 1 if torch.equal(now, exemplar) else 0
        exemplar = now
        if unchanged >= _CONVERGED and exemplar.any():
            break
    if not exemplar.any():
        return torch.arange(count, device=similarity.device)
    cluster = similarity[:, exemplar].argmax(dim=1)
    cluster[exemplar] = torch.arange(int(exemplar.sum()), device=cluster.device)
    return cluster


def _prepared(similarity: Tensor) -> Tensor:
    """With the preferences on the diagonal, and without ties."""
    count = len(similarity)
    others = similarity[~torch.eye(count, dtype=torch.bool, device=similarity.device)]
    noise = torch.randn(count, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prepared = similarity.clone().fill_diagonal_(others.median().item())
    scale = 1e-12 * others.abs().max().clamp(min=1e-12)
    return prepared + scale * noise.to(similarity.device)


def _responsibility(similarity: Tensor, availability: Tensor) -> Tensor:
    """How well each column suits each row as exemplar, compared with the row's best other choice."""
    best, which = (availability + similarity).topk(2, dim=1)
    rival = best[:, :1].repeat(1, len(similarity)).scatter(1, which[:, :1], best[:, 1:])
    return similarity - rival


def _availability(responsibility: Tensor) -> Tensor:
    """How much the other rows support each column as exemplar."""
    support = responsibility.clamp(min=0)
    support.diagonal().copy_(responsibility.diagonal())
    availability = support.sum(dim=0) - support
    own = availability.diagonal().clone()
    availability.clamp_(max=0).diagonal().copy_(own)
    return availability
