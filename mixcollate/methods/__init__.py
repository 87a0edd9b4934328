"""One short file per method: a transform with its hyper-parameters, and how it draws its part of a plan."""

from mixcollate.methods.cutmix import CutMix as CutMix
from mixcollate.methods.cutout import Cutout as Cutout
from mixcollate.methods.fmix import FMix as FMix
from mixcollate.methods.gridmask import GridMask as GridMask
from mixcollate.methods.hide_and_seek import HideAndSeek as HideAndSeek
from mixcollate.methods.mixup import MixUp as MixUp
from mixcollate.methods.mosaic import Mosaic as Mosaic
from mixcollate.methods.random_erasing import RandomErasing as RandomErasing
from mixcollate.methods.resizemix import ResizeMix as ResizeMix
from mixcollate.methods.ricap import RICAP as RICAP
from mixcollate.transforms import MixTransform as _MixTransform

ALL: dict[str, type[_MixTransform]] = {
    name: method
    for name, method in vars().copy().items()
    if isinstance(method, type) and issubclass(method, _MixTransform) and not name.startswith("_")
}
"""Every method by its name: what the command line, the tests and the benchmarks go through."""
