"""What does mixing cost against not mixing, and against a copy of the same bytes, for each dtype and layout?

"no mixing" is a call with the plan that changes nothing: what a pipeline does to its pixels anyway. Rows in place
read and write only what changes, so they can beat the copy.
"""

import pytest
import torch

from benchmarks.common import (
    MEAN,
    STD,
    Rivals,
    copy_of,
    dtype_name,
    random_images,
    rotating,
    scaled,
    shape_name,
    standard_shape,
)
from mixcollate.kernels import mix
from mixcollate.methods import ALL
from mixcollate.plan import identity

U8, F16, BF16, F32 = torch.uint8, torch.float16, torch.bfloat16, torch.float32
CASES = [  # dtype, dtype of the result, layout; normalised where they differ
    (F32, F32, "NCHW"),
    (F32, F32, "channels_last"),
    (U8, U8, "NCHW"),
    (U8, F32, "NCHW"),
    (U8, BF16, "NCHW"),
    (U8, BF16, "channels_last"),
    (U8, F16, "NCHW"),
    (BF16, BF16, "NCHW"),
]
OPTIONS = {"FMix": {"per": "batch"}, "RandomErasing": {"p": 0.25}}
NAMES = {"FMix": "FMix (one mask a batch)"}
METHODS = {NAMES.get(name, name): method(**OPTIONS.get(name, {})) for name, method in ALL.items()}
RIVALS = ["copy", "no mixing", *METHODS, "MixUp in place", "CutMix in place"]


def case_id(case):
    read, written, layout = case
    return f"{dtype_name(read)} to {dtype_name(written)}, {layout}"


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_cost(race, device, case, rival):
    read, written, layout = case
    if device.type == "cpu" and {read, written} & {F16, BF16}:
        pytest.skip("16-bit floats are for GPUs")
    shape = scaled((64, 3, 224, 224), (4, 3, 16, 16)) if device.type == "cpu" else standard_shape(device)
    elements = torch.Size(shape).numel()
    moved = elements * (read.itemsize + written.itemsize)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    options = {} if read == written else {"mean": MEAN, "std": STD, "dtype": written}

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, read, device, memory_format))
        nothing = identity(shape[0], shape[2:])

        def run(transform):
            return lambda: mix(batch := next(images), transform.make_plan(batch), **options)

        def in_place(transform):
            if read != written:
                return "a result of another dtype has a memory of its own"
            return lambda: mix(batch := next(images), transform.make_plan(batch), out=batch)

        return {
            "copy": copy_of(moved, device),
            "no mixing": lambda: mix(next(images), nothing, **options),
            **{name: run(transform) for name, transform in METHODS.items()},
            "MixUp in place": in_place(METHODS["MixUp"]),
            "CutMix in place": in_place(METHODS["CutMix"]),
        }

    race(
        rivals, rival, case=f"{case_id(case)} {shape_name(shape)}", device=device, ours="no mixing", images=shape[0],
        moved=moved, clock="device" if device.type == "cuda" else "call",
    )  # fmt: skip
