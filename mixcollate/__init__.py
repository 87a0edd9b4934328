"""mixup and its relatives on the device: one plan, one pass, soft targets."""

import mixcollate.kernels.operator as _operator  # noqa: F401  # registers it with torch
from mixcollate.batch import MixBatch as MixBatch
from mixcollate.collate import MixupCollate as MixupCollate
from mixcollate.containers import Compose as Compose
from mixcollate.containers import RandomChoice as RandomChoice
from mixcollate.loader import DeviceLoader as DeviceLoader
from mixcollate.losses import soft_accuracy as soft_accuracy
from mixcollate.losses import soft_binary_cross_entropy as soft_binary_cross_entropy
from mixcollate.losses import soft_cross_entropy as soft_cross_entropy
from mixcollate.methods import RICAP as RICAP
from mixcollate.methods import CutMix as CutMix
from mixcollate.methods import Cutout as Cutout
from mixcollate.methods import FMix as FMix
from mixcollate.methods import GridMask as GridMask
from mixcollate.methods import HideAndSeek as HideAndSeek
from mixcollate.methods import MixUp as MixUp
from mixcollate.methods import Mosaic as Mosaic
from mixcollate.methods import RandomErasing as RandomErasing
from mixcollate.methods import ResizeMix as ResizeMix
from mixcollate.plan import Draw as Draw
from mixcollate.plan import MixPlan as MixPlan
from mixcollate.targets import SoftTarget as SoftTarget
from mixcollate.transforms import ErasingTransform as ErasingTransform
from mixcollate.transforms import MixTransform as MixTransform

__version__ = "0.1.0"
