"""Running the classifier on features other than the batch's."""

from __future__ import annotations

from torch import nn

from aegl.errors import ConfigError
from aegl.longtail.classifiers import classifier_inputs


def require_one_input(classifier: nn.Module, part: str) -> None:
    """Raise :class:`aegl.errors.ConfigError` if the classifier cannot make logits of one feature vector per row.

    Args:
        classifier: the layer.
        part: the part of the method that wants to, for the message.
    """
    inputs = classifier_inputs(classifier)
    if len(inputs) != 1:
        raise ConfigError(
            f"{part}: trains the classifier on features that it keeps, one vector each; this box.classifier reads "
            f"{len(inputs)} ({', '.join(inputs)}): choose another, e.g. linear"
        )
