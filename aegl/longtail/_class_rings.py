"""Features kept per class, each class in a ring of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aegl.longtail._lazy_state import LazyState


class ClassRings(LazyState):
    """The last ``size`` entries of each class. A class without an entry takes no memory.

    Args:
        num_classes: C.
        size: entries of one class; a further one takes the place of the oldest.
        names: what an entry consists of.
    """

    def __init__(self, num_classes: int, size: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.size = size
        self.names = names
        self._written = torch.zeros(num_classes, dtype=torch.int64)
        self._rings: dict[int, dict[str, Tensor]] = {}

    @property
    def filled(self) -> Tensor:
        """``[C]`` int64 on the CPU: entries of each class."""
        return self._written.clamp(max=self.size)

    def add(self, labels: Tensor, **entries: Tensor) -> None:
        """Take in entries. All are kept on the device of those that came last.

        Args:
            labels: ``[M]`` int64 in ``0..C-1``.
            entries: ``[M, ...]`` each, by name; always of the same shapes and dtypes.
        """
        for ring in self._rings.values():  # after loading they may lie elsewhere
            ring.update({name: part.to(labels.device) for name, part in ring.items()})
        for label in labels.unique().tolist():
            rows = (labels == label).nonzero().squeeze(1)
            first = int(self._written[label])
            self._written[label] += len(rows)
            slots = torch.arange(first, first + len(rows))[-self.size :].to(labels.device) % self.size
            ring = self._rings.setdefault(label, {})
            for name in self.names:
                new = entries[name].detach()[rows[-self.size :]]
                if name not in ring:
                    ring[name] = new.new_empty((self.size, *new.shape[1:]))
                ring[name][slots] = new

    def take(self, labels: list[int], slots: list[int], name: str) -> list[Tensor]:
        """One part of some entries, on their device; ``slots`` are below :attr:`filled` of the class."""
        return [self._rings[label][name][slot] for label, slot in zip(labels, slots, strict=True)]

    def tensors(self) -> dict[str, Tensor]:
        """``written`` (``[C]``, entries so far) and each part of all entries, class by class, in the order of slots."""
        filled = self.filled.tolist()
        parts: dict[str, Tensor] = {"written": self._written}
        for name in self.names:
            used = [self._rings[label][name][:count] for label, count in enumerate(filled) if count]
            parts[name] = torch.cat(used) if used else torch.zeros(0)
        return parts

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See :meth:`LazyState.restore`."""
        written = tensors["written"].cpu()
        counts = written.clamp(max=self.size)
        fits = written.shape == self._written.shape and all(len(tensors[n]) == counts.sum() for n in self.names)
        if not fits:
            raise ValueError(f"its entries are not those of {len(self._written)} classes of up to {self.size} each")
        self._written = written
        self._rings = {label: {} for label in counts.nonzero().squeeze(1).tolist()}
        for name in self.names:
            rows = tensors[name].split(counts.tolist())
            for label, ring in self._rings.items():
                ring[name] = rows[label].new_empty((self.size, *rows[label].shape[1:]))
                ring[name][: len(rows[label])] = rows[label]
