"""Reading weights from files, with messages that say what does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aegl.errors import CheckpointError

_WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_ema")


def load_backbone_file(body: nn.Module, path: Path) -> None:
    """Load a local file of backbone weights with timm's tensor names into a timm feature extractor.

    Parts behind the last feature map are left out; everything else must be there and fit.

    Raises:
        CheckpointError: if the file is missing, is none of weights, or does not fit the model.
    """
    given = read_tensors(path)
    wanted = body.state_dict()
    found = {key: tensor for key, tensor in ((_feature_key(k, wanted), v) for k, v in given.items()) if key in wanted}
    missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    misshapen = [key for key, tensor in found.items() if tensor.shape != wanted[key].shape]
    if missing or misshapen:
        raise CheckpointError(
            f"backbone_weights={path}: does not fit the backbone: {_some('missing', missing)}"
            f"{_some('of another shape', misshapen)}the file holds {len(given)} tensors such as "
            f"{', '.join(list(given)[:3])}; are these weights of the same timm model?"
        )
    body.load_state_dict(found, strict=False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch or safetensors file, by name. Nothing in the file is executed.

    Raises:
        CheckpointError: if the file is missing or holds none.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except MemoryError:
        raise
    except Exception as error:  # torch raises a dozen kinds for files that are none of weights
        reason = (str(error).splitlines() or [""])[0][:120]
        raise CheckpointError(f"{path}: cannot be read as weights ({type(error).__name__}: {reason})") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors by name, so it is no weights file")
    return tensors


def load_matching(model: nn.Module, state: Mapping[str, Tensor], *, skip: tuple[str, ...] = ()) -> list[str]:
    """Load what fits by name and shape, for fine-tuning.

    Args:
        model: the detector.
        state: weights of another detector.
        skip: prefixes of names that are not loaded.

    Returns:
        Names of the model's tensors that were not loaded.

    Raises:
        CheckpointError: if nothing fits.
    """
    own = model.state_dict()
    usable = {
        key: tensor
        for key, tensor in state.items()
        if key in own and own[key].shape == tensor.shape and not key.startswith(skip)
    }
    if not usable:
        raise CheckpointError("the weights fit no part of this model: are they of another model?")
    model.load_state_dict(usable, strict=False)
    return [key for key in own if key not in usable]


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def _feature_key(key: str, wanted: Mapping[str, Tensor]) -> str:
    """timm's feature extractors flatten ``stages.0.x`` to ``stages_0.x``."""
    flattened = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", key)
    return flattened if flattened in wanted and key not in wanted else key


def _some(what: str, names: list[str]) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}), " if names else ""
