"""One short file a method: how it draws its part of a plan, and the transform with its hyper-parameters."""

from mixcollate.methods.cutmix import CutMix as CutMix
from mixcollate.methods.cutmix import cutmix as cutmix
from mixcollate.methods.cutout import Cutout as Cutout
from mixcollate.methods.cutout import cutout as cutout
from mixcollate.methods.fmix import FMix as FMix
from mixcollate.methods.fmix import fmix as fmix
from mixcollate.methods.gridmask import GridMask as GridMask
from mixcollate.methods.gridmask import gridmask as gridmask
from mixcollate.methods.hide_and_seek import HideAndSeek as HideAndSeek
from mixcollate.methods.hide_and_seek import hide_and_seek as hide_and_seek
from mixcollate.methods.mixup import MixUp as MixUp
from mixcollate.methods.mixup import mixup as mixup
from mixcollate.methods.mosaic import Mosaic as Mosaic
from mixcollate.methods.mosaic import mosaic as mosaic
from mixcollate.methods.random_erasing import RandomErasing as RandomErasing
from mixcollate.methods.random_erasing import random_erasing as random_erasing
from mixcollate.methods.resizemix import ResizeMix as ResizeMix
from mixcollate.methods.resizemix import resizemix as resizemix
from mixcollate.methods.ricap import RICAP as RICAP
from mixcollate.methods.ricap import ricap as ricap
