"""Long-tail methods. Knows tensors and class statistics, nothing of models, data files or configuration."""

from aegl.longtail.base import AuxiliaryLoss, Calibrator, ClassificationLoss, FeatureMemory, RegionSelector
from aegl.longtail.registry import Registry

LOSSES: Registry[ClassificationLoss] = Registry("loss", "aegl.longtail.losses", ClassificationLoss)
"""Every classification loss by its configuration name (`loss.name`)."""
AUXILIARY_LOSSES: Registry[AuxiliaryLoss] = Registry("auxiliary", "aegl.longtail.auxiliary", AuxiliaryLoss)
CALIBRATORS: Registry[Calibrator] = Registry("calibrate", "aegl.longtail.calibrators", Calibrator)
SELECTORS: Registry[RegionSelector] = Registry("selector", "aegl.longtail.selectors", RegionSelector)
MEMORIES: Registry[FeatureMemory] = Registry("memory", "aegl.longtail.memories", FeatureMemory)
