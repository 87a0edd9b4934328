"""mixup and its relatives on the device: one plan, one pass, soft targets."""

from mixcollate.collate import MixBatch as MixBatch
from mixcollate.collate import MixupCollate as MixupCollate
from mixcollate.loader import DeviceLoader as DeviceLoader
from mixcollate.plan import MixPlan as MixPlan
from mixcollate.targets import SoftTarget as SoftTarget
from mixcollate.targets import soft_accuracy as soft_accuracy
from mixcollate.targets import soft_cross_entropy as soft_cross_entropy
from mixcollate.transforms import RICAP as RICAP
from mixcollate.transforms import Compose as Compose
from mixcollate.transforms import CutMix as CutMix
from mixcollate.transforms import Cutout as Cutout
from mixcollate.transforms import FMix as FMix
from mixcollate.transforms import GridMask as GridMask
from mixcollate.transforms import HideAndSeek as HideAndSeek
from mixcollate.transforms import MixUp as MixUp
from mixcollate.transforms import Mosaic as Mosaic
from mixcollate.transforms import RandomChoice as RandomChoice
from mixcollate.transforms import RandomErasing as RandomErasing
from mixcollate.transforms import ResizeMix as ResizeMix
