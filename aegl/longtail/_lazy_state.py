"""State of training whose size only the data tells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class LazyState(nn.Module, ABC):
    """Tensors of training in the state dict, of whatever size they have by now.

    They are no buffers, which an averaged copy of the model and a checkpoint fill in place and which therefore need
    their last shape from the start. Such a copy begins without them, and nothing moves them between devices.
    """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The state by name; the names never change."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`tensors`. Raises ``ValueError`` if they cannot be the state."""

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination.update({prefix + name: tensor.detach() for name, tensor in self.tensors().items()})

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        wanted = {name: prefix + name for name in self.tensors()}
        absent = [key for key in wanted.values() if key not in state_dict]
        if strict:
            missing_keys += absent
            unexpected_keys += [key for key in state_dict if key.startswith(prefix) and key not in set(wanted.values())]
        if absent:
            return
        try:
            self.restore({name: state_dict[key].detach().clone() for name, key in wanted.items()})
        except ValueError as error:
            error_msgs.append(f"{prefix[:-1]}: {error}")
