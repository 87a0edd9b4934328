"""mixup and its relatives on the device: one plan, one pass, soft targets."""

import mixcollate.kernels.operator as _operator  # noqa: F401  # registers it with torch
from mixcollate.batch import MixBatch
from mixcollate.collate import MixupCollate
from mixcollate.containers import Compose, RandomChoice
from mixcollate.draw import Draw
from mixcollate.loader import DeviceLoader
from mixcollate.losses import soft_accuracy, soft_binary_cross_entropy, soft_cross_entropy
from mixcollate.methods import (
    RICAP,
    CutMix,
    Cutout,
    FMix,
    GridMask,
    HideAndSeek,
    MixUp,
    Mosaic,
    RandomErasing,
    ResizeMix,
)
from mixcollate.plan import MixPlan
from mixcollate.targets import SoftTarget
from mixcollate.transforms import ErasingTransform, MixTransform

__all__ = [
    "RICAP",
    "Compose",
    "CutMix",
    "Cutout",
    "DeviceLoader",
    "Draw",
    "ErasingTransform",
    "FMix",
    "GridMask",
    "HideAndSeek",
    "MixBatch",
    "MixPlan",
    "MixTransform",
    "MixUp",
    "MixupCollate",
    "Mosaic",
    "RandomChoice",
    "RandomErasing",
    "ResizeMix",
    "SoftTarget",
    "soft_accuracy",
    "soft_binary_cross_entropy",
    "soft_cross_entropy",
]

__version__ = "0.1.0"
