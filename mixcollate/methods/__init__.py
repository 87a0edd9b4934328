"""How each method draws its part of a plan: one short file a method."""

from mixcollate.methods.cutmix import Placement as Placement
from mixcollate.methods.cutmix import cutmix as cutmix
from mixcollate.methods.cutout import cutout as cutout
from mixcollate.methods.fill import Fill as Fill
from mixcollate.methods.fmix import fmix as fmix
from mixcollate.methods.gridmask import gridmask as gridmask
from mixcollate.methods.hide_and_seek import hide_and_seek as hide_and_seek
from mixcollate.methods.mixup import mixup as mixup
from mixcollate.methods.mosaic import mosaic as mosaic
from mixcollate.methods.random_erasing import random_erasing as random_erasing
from mixcollate.methods.resizemix import Interpolation as Interpolation
from mixcollate.methods.resizemix import resizemix as resizemix
from mixcollate.methods.ricap import ricap as ricap
