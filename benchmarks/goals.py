"""Performance goals: ratios within one run, or limits. Benchmarks name the rows that a goal is about."""

from typing import NamedTuple


class Goal(NamedTuple):
    """A goal and its limit.

    Attributes:
        what: description.
        limit: limit of the measured value.
        unit: ``"×"``: how many times as long as ours the fastest other takes (at least the limit); ``"× at most"``: how
            many times as long ours takes (at most the limit); else the unit of a time or count (at most the limit).
    """

    what: str
    limit: float
    unit: str = "×"


GOALS = {
    "C1 tensors": Goal("a worker's collate, mixing deferred, against torch.stack into shared memory", 1.1, "× at most"),
    "C1 NumPy": Goal(
        "a worker's collate of NumPy arrays, mixing deferred, against torch.stack into shared memory", 1.5, "× at most"
    ),
    "C2 tensors": Goal("collate + MixUp on the CPU, against timm's FastCollateMixup in its best mode", 2),
    "C2 NumPy": Goal("collate + MixUp of NumPy arrays on the CPU, against timm's FastCollateMixup in its best mode", 2),
    "C2 tensors, Numba": Goal(
        "collate + MixUp with Numba's loops, against timm's FastCollateMixup in its best mode", 7
    ),
    "C2 NumPy, Numba": Goal(
        "collate + MixUp of NumPy arrays with Numba's loops, against timm's FastCollateMixup in its best mode", 7
    ),
    "C2 torchvision": Goal("collate + MixUp on the CPU, against stack + ToDtype + v2.MixUp", 10),
    "C3 tensors": Goal("collate + CutMix on the CPU, against timm's FastCollateMixup in its best mode", 1.5),
    "C3 NumPy": Goal(
        "collate + CutMix of NumPy arrays on the CPU, against timm's FastCollateMixup in its best mode", 1.5
    ),
    "C4": Goal("a plan for 256 images, MixUp or CutMix chosen for each pair", 100, "µs"),
    "C5 MixUp": Goal("in-place float32 MixUp on the CPU, against v2.MixUp", 4),
    "C5 CutMix": Goal("in-place float32 CutMix on the CPU, against v2.CutMix", 8),
    "C6 MixUp": Goal("the whole call for 64 images of 8×8 on the CPU, against v2.MixUp", 1),
    "C6 CutMix": Goal("the whole call for 64 images of 8×8 on the CPU, against v2.CutMix", 1),
    "G1 float32": Goal("in-place MixUp, against a copy of the same bytes", 0.9),
    "G1 bfloat16": Goal("in-place MixUp, against a copy of the same bytes", 0.9),
    "G1 float32 peers": Goal("in-place MixUp, against v2.MixUp and timm's Mixup", 4),
    "G1 bfloat16 peers": Goal("in-place MixUp, against v2.MixUp and timm's Mixup", 4),
    "G2 NCHW": Goal("uint8 to normalised bfloat16, MixUp or CutMix for each pair, erasing; against a copy", 0.85),
    "G2 channels_last": Goal(
        "uint8 to normalised bfloat16 in channels_last, MixUp or CutMix for each pair, erasing; against a copy", 0.85
    ),
    "G2 NCHW timm": Goal("uint8 to bfloat16, mixing, erasing; against timm's normalise + Mixup + RandomErasing", 8),
    "G2 channels_last timm": Goal(
        "uint8 to bfloat16, channels_last, mixing, erasing; against timm's normalise + Mixup + RandomErasing",
        8,
    ),
    "G2 NCHW torchvision": Goal(
        "uint8 to bfloat16, mixing, erasing; against torchvision's ToDtype + Normalize + MixUp", 10
    ),
    "G2 channels_last torchvision": Goal(
        "uint8 to bfloat16, channels_last, mixing, erasing; against torchvision's ToDtype + Normalize + MixUp",
        10,
    ),
    "G3 torchvision": Goal("in-place CutMix, against v2.CutMix", 3),
    "G3 peers": Goal("in-place CutMix, against the fastest of the others", 1.5),
    "G4": Goal("any partner map, uint8 to normalised bfloat16, against a copy of 3 bytes an element", 0.75),
    "G5 pair": Goal("a draw for each pair, against timm's pair mode", 50),
    "G5 elem": Goal("a draw for each image, against timm's elem mode", 50),
    "G6 RICAP": Goal("RICAP, against the official algorithm", 5),
    "G6 Mosaic": Goal("Mosaic, against a loop over images", 5),
    "G6 GridMask": Goal("GridMask, against the official algorithm", 20),
    "G6 HideAndSeek": Goal("Hide-and-Seek, against the official algorithm", 20),
    "G7": Goal("the whole call for 512 images of 32×32, against v2.MixUp", 2),
    "G8 time": Goal("host time of a call for 256 images", 60, "µs"),
    "G8 kernels": Goal("kernels of a call, targets included", 3, "kernels"),
    "G8 synchronisations": Goal("times that the host waits in a call", 0, "synchronisations"),
    "G9": Goal("throughput of DeviceLoader with mixing, against the same without", 0.97),
    "G9 JPEG": Goal("throughput of DeviceLoader with mixing, of JPEG files, against the same without", 0.97),
    "G10": Goal("sparse targets and loss, forward and backward, against dense targets and F.cross_entropy", 4),
    "G10 device": Goal("sparse targets and loss against dense targets and F.cross_entropy, by the device's time", 4),
    "G10 dense": Goal("our loss of dense targets against F.cross_entropy, by the device's time", 1),
}
