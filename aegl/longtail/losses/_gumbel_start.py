"""How the classifier of the Gumbel losses starts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

ClassifierBias = Annotated[float, Field(description="Bias of every column at the start; -2 is a score of 6.2e-4.")]
ClassifierWeights = Annotated[
    Literal["normal", "constant"],
    Field(description="Weights at the start: N(0, 0.01), or 0.001 each as in the authors' configuration."),
]


def start_classifier(layer: nn.Module, bias: float, weights: ClassifierWeights) -> None:
    """Initialise the classifier layer: every bias ``bias``; weights N(0, 0.01) or all 0.001."""
    weight, biases = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if isinstance(weight, Tensor):
        if weights == "normal":
            nn.init.normal_(weight, std=0.01)
        else:
            nn.init.constant_(weight, 0.001)
    if isinstance(biases, Tensor):
        nn.init.constant_(biases, bias)
