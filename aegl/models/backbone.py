"""Any timm backbone as a feature extractor with strides 4, 8, 16 and 32."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from aegl.errors import CheckpointError, ConfigError
from aegl.models.weights import load_backbone_file

LOGGER = logging.getLogger("aegl")

NormMode = Literal["frozen", "eval", "batch", "sync"]
STRIDES = (4, 8, 16, 32)
_FOR_ANY_SIZE = {"strict_img_size": False, "always_partition": True}
"""Makes timm's Swin take images of any size; shifted windows stay even where the last stage was built as one window."""
_ODD_SIZE = (64, 96)
"""No model is built for images of this size."""
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


class TimmBackbone(nn.Module):
    """A timm model cut into its feature maps.

    Args:
        name: timm model name.
        norm: what batch norm does in training: ``frozen`` (statistics and affine fixed), ``eval`` (statistics fixed),
            ``batch`` (as usual), ``sync`` (as usual, with the statistics of all processes, which must have a GPU each).
            Other norms are not touched.
        frozen_stages: -1 nothing, 0 the stem, n the stem and the first n stages are not trained.
        pretrained: load timm's weights, from its cache or the hub.
        weights_file: load this local file instead.
        drop_path: stochastic depth rate.
        first_level: finest level given out: 2 for stride 4, 3 for stride 8, 4 for stride 16.

    Raises:
        ConfigError: for an unknown model, one without pyramid features, one for images of one size, or one whose stages
            cannot be frozen.
        CheckpointError: if weights cannot be had or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        norm: NormMode = "eval",
        frozen_stages: int = 1,
        pretrained: bool = True,
        weights_file: Path | None = None,
        drop_path: float = 0.0,
        first_level: int = 2,
    ) -> None:
        super().__init__()
        body: Any = _create(name, pretrained and weights_file is None, drop_path, first_level)
        if weights_file is not None:
            load_backbone_file(body, weights_file)
        if norm == "sync":
            body = timm.layers.convert_sync_batchnorm(body)
        elif norm == "frozen":
            # Factors and offsets without state: unlike a batch norm they keep none of their inputs for the gradient.
            body = timm.layers.freeze_batch_norm_2d(body)
        self.body = body
        info = body.feature_info
        self.channels: list[int] = list(info.channels())
        self.strides: list[int] = list(info.reduction())
        pretrained_cfg: Mapping[str, Any] = getattr(self.body, "pretrained_cfg", None) or {}
        self.mean: tuple[float, ...] = tuple(pretrained_cfg.get("mean", (0.485, 0.456, 0.406)))
        self.std: tuple[float, ...] = tuple(pretrained_cfg.get("std", (0.229, 0.224, 0.225)))
        self.dynamic_size = not _is_windowed(self.body)
        """Whether an exported graph may take images of any size; window attention fixes it."""
        self._channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        self._norm = norm
        try:
            self._frozen = _frozen_modules(self.body, frozen_stages)
        except ValueError as error:
            raise ConfigError(
                f"backbone.frozen_stages={frozen_stages}: {name} does not show its stages; give "
                "backbone.frozen_stages=-1, which freezes nothing"
            ) from error
        if norm == "frozen":
            self._frozen += _batch_norms(self.body)  # those that timm has no frozen kind of
        for module in self._frozen:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]`` normalised images to one ``[B, Ci, H/stride, W/stride]`` map per level."""
        features = self.body(images)
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return list(features)

    def checkpoint_activations(self) -> None:
        """Keep the activations of the stages' borders only, and compute the others again in the backward pass.

        Raises:
            ConfigError: if the model cannot do without them.
        """
        enable = getattr(self.body, "set_grad_checkpointing", None)
        try:
            if enable is None:
                raise AssertionError("it has no such switch")
            enable(True)
        except AssertionError as error:  # timm's way to say so
            raise ConfigError(f"checkpoint_activations=true: this backbone cannot ({error}); leave it out") from error

    def train(self, mode: bool = True) -> TimmBackbone:
        """As usual, but frozen parts and fixed statistics stay as they are."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        if self._norm not in ("batch", "sync"):
            for norm in _batch_norms(self.body):
                norm.eval()
        return self


def _create(name: str, pretrained: bool, drop_path: float, first_level: int) -> Any:
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:5]
        hint = f"; near ones: {', '.join(near)}" if near else ""
        raise ConfigError(f"backbone.name={name}: timm has no model of that name{hint}")
    probe = _features(name, pretrained=False)
    wanted = [
        i for i, reduction in enumerate(probe.feature_info.reduction()) if reduction in STRIDES[first_level - 2 :]
    ]
    reductions = [probe.feature_info.reduction()[i] for i in wanted]
    if reductions != list(STRIDES[first_level - 2 :]):
        raise ConfigError(
            f"backbone.name={name}: gives features at strides {probe.feature_info.reduction()}, but strides "
            f"{list(STRIDES[first_level - 2 :])} are needed; choose a hierarchical backbone"
        )
    keys: dict[str, Any] = {"out_indices": tuple(probe.feature_info.out_indices[i] for i in wanted)}
    if drop_path:
        keys["drop_path_rate"] = drop_path
    any_size = _takes_any_size(probe)
    try:
        body = _features(name, pretrained=pretrained, **keys, **({} if any_size else _FOR_ANY_SIZE))
    except TypeError as error:
        if not any_size:
            raise _fixed_size(name) from error
        raise ConfigError(f"backbone.drop_path={drop_path}: {name} has none; give backbone.drop_path=0") from error
    except (OSError, RuntimeError, ValueError) as error:
        if not pretrained:
            raise
        raise CheckpointError(
            f"backbone.name={name}: its pretrained weights cannot be had ({_first_line(error)}). Give a local file "
            "with backbone_weights=<file>, or start from random weights with pretrained=false"
        ) from error
    if not any_size and not _takes_any_size(body):
        raise _fixed_size(name)
    return body


def _features(name: str, *, pretrained: bool, **keys: Any) -> Any:
    return timm.create_model(name, features_only=True, pretrained=pretrained, **keys)


def _fixed_size(name: str) -> ConfigError:
    return ConfigError(
        f"backbone.name={name}: takes images of one size only, a detector needs all; choose another backbone"
    )


@torch.no_grad()
def _takes_any_size(body: nn.Module) -> bool:
    try:
        body.eval()(torch.zeros(1, 3, *_ODD_SIZE))
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


def _is_windowed(body: nn.Module) -> bool:
    return any("Window" in type(module).__name__ for module in body.modules())


def _frozen_modules(body: nn.Module, frozen_stages: int) -> list[nn.Module]:
    """The stem and the first stages, in the order of the forward pass."""
    if frozen_stages < 0:
        return []
    children: dict[str, nn.Module] = {}
    for name, module in body.named_children():
        parts = module.named_children() if name == "blocks" else ()
        children.update({f"{name}_{part}": inner for part, inner in parts} or {name: module})
    info: Any = body.feature_info.info  # type: ignore[union-attr]
    last_of_stage = [entry["module"].replace(".", "_") for entry in info if entry["reduction"] in STRIDES]
    names = list(children)
    end = names.index(last_of_stage[0]) if frozen_stages == 0 else names.index(last_of_stage[frozen_stages - 1]) + 1
    return [children[name] for name in names[:end]]


def _batch_norms(body: nn.Module) -> list[nn.Module]:
    return [module for module in body.modules() if isinstance(module, _BATCH_NORMS)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
