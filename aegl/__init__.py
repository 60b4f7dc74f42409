"""Long-tail instance detection and segmentation: one toolkit to train, evaluate, export and compare methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aegl._version import __version__

if TYPE_CHECKING:
    from aegl.detector import Detector

__all__ = ["Detector", "__version__"]


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; `aegl --help` and the torch-free parts must not wait for it.
    if name == "Detector":
        from aegl.detector import Detector

        return Detector
    raise AttributeError(f"module 'aegl' has no attribute {name!r}")
