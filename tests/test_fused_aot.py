"""Do the kernels compile for an H200 into what was meant: no spills, 16-byte accesses, few registers?

Compiles for sm_90 with Triton's own assembler; needs no GPU. ``python -m tests.test_fused_aot`` prints the table.
"""

import collections
import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from mixcollate.kernels.support import FUSED_FROM, has_right_triton
from mixcollate.plan import MixPlan

pytestmark = pytest.mark.slow  # compiles 45 kernels down to the machine code of an H100

B, H, W = 8, 224, 224


class Kernel(NamedTuple):
    """What became of a kernel: registers, spills, exchanges between threads, how often it loads and stores how
    many bytes at a time, in what order it loads, waits and stores, and machine instructions per output element on
    the shortest way that stores everything.
    """

    registers: int
    spills: int
    exchanges: int
    loads: dict[str, int]
    stores: dict[str, int]
    order: str
    instructions: float

    def __str__(self) -> str:
        moves = [" ".join(f"{width} x{n}" for width, n in which.items()) for which in (self.loads, self.stores)]
        return f"{self.registers:9} {self.spills:6} {self.exchanges:9} {self.instructions:9.1f}  {' / '.join(moves)}"


class Launch(NamedTuple):
    """What a launch compiles: the kernel, its arguments as ``source_of`` takes them, elements a program writes, and
    whether a product and a sum may be rounded once.
    """

    kernel: Any
    arguments: list[Any]
    constants: list[Any]
    elements: int
    warps: int
    fuses: bool = False


def compiled_for(target, launch):
    """Compile as this launch would on another machine."""
    import triton

    from tests.ahead_of_time import source_of

    warps = max(launch.warps * 32 // target.warp_size, 1)
    options = {"num_warps": warps, "enable_fp_fusion": launch.fuses}
    source = source_of(launch.kernel, launch.arguments, launch.constants)
    return triton.compile(source, target=target, options=options)


def compile_for_h200(launch):
    """Compile, and read the machine code."""
    from tests.ahead_of_time import TARGET

    return _read(compiled_for(TARGET, launch), launch.elements / (32 * launch.warps))


def _read(compiled, elements):
    import triton

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        run = {"capture_output": True, "text": True, "check": True}
        machine = subprocess.run([tools / "nvdisasm", "-c", cubin.name], **run).stdout
        usage = subprocess.run([tools / "cuobjdump", "-res-usage", cubin.name], **run)
    registers = re.search(r"REG:(\d+)", usage.stdout + usage.stderr)
    code = [(at, *rest, name.split(".")[0], where) for at, *rest, name, where in INSTRUCTION.findall(machine)]
    names = [name for _, _, name, _ in code]
    moves = re.findall(r"\b(ld|st)\.global(?:\.\w+)*?((?:\.v\d)?)\.b(\d+)", compiled.asm["ptx"])
    widths = collections.Counter((kind, int(vector[2:] or 1) * int(bits) // 8) for kind, vector, bits in moves)
    return Kernel(
        registers=int(registers[1]),
        spills=sum(name in ("LDL", "STL") for name in names),
        exchanges=sum(name in ("LDS", "STS", "SHFL", "LDSM") for name in names),
        loads={f"{width}B": widths[kind, width] for kind, width in sorted(widths) if kind == "ld" and width > 4},
        stores={f"{width}B": widths[kind, width] for kind, width in sorted(widths) if kind == "st"},
        order=" ".join(key for key, _ in itertools.groupby(n for n in names if n in ("LDG", "BAR", "STG"))),
        instructions=_fewest(code) / elements,
    )


INSTRUCTION = re.compile(
    r"^(\.L_x_\d+):|^\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\b[^;]*?(\.L_x_\d+)?\)? *;", re.MULTILINE
)


def _fewest(code):
    """Instructions on the shortest of the ways through a program that store as much as any does: what a tile takes
    where there is nothing to skip, and nothing that most tiles have none of.
    """
    places = {label: place for place, (label, *_) in enumerate(code) if label}
    best = [(0, 0)] * (len(code) + 1)  # stores, and minus the instructions, from each place on
    for place in reversed(range(len(code))):
        label, predicate, name, target = code[place]
        ways = [best[place + 1]]
        if name == "EXIT":
            ways = [(0, 0), *ways] if predicate else [(0, 0)]
        elif name == "BRA" and places[target] > place:  # a loop is gone through once
            ways = [best[places[target]], *(ways if predicate else [])]
        stores, fewer = max(ways)
        best[place] = (stores + (name == "STG"), fewer - (not label and name not in ("NOP", "BRA", "EXIT")))
    return -best[0][1]


def plans():
    """One plan of each kind, for 8 images of 224 x 224."""
    ones, zeros = np.ones(B, np.float32), np.zeros(B, np.float32)
    flip, roll = np.arange(B)[::-1, None].copy(), np.roll(np.arange(B), 1)[:, None]
    shares = np.full((B, 2), 0.5, np.float32)
    box = np.tile(np.array([10, 20, 100, 120], np.int32), (B, 1))
    fill = np.zeros((B, 1, 3), np.float32)
    mixed = {"size": (H, W), "partners": flip, "shares": shares, "own_outside": ones}
    boxed = {**mixed, "own_inside": zeros, "box": box}
    alone = {"size": (H, W), "partners": np.empty((B, 0), np.int64), "shares": np.ones((B, 1), np.float32)}
    four = {**alone, "partners": np.tile(roll, (1, 3)), "shares": np.full((B, 4), 0.25, np.float32)}
    grid = np.tile(np.array([96, 40, 3, 5, 0], np.int32), (B, 1))
    return {
        "mixup": MixPlan(**mixed),
        "mixup, each": MixPlan(**{**mixed, "own_outside": zeros + np.linspace(0, 1, B, dtype=np.float32)}),
        "cutmix, each": MixPlan(**{**boxed, "box": box + np.arange(B, dtype=np.int32)[:, None]}),
        "cutmix": MixPlan(**boxed),
        "cutmix+erase": MixPlan(**boxed, erase_box=box[:, None], fill=fill),
        "cutmix, roll": MixPlan(**{**boxed, "partners": roll}),
        "cutmix+erase, roll": MixPlan(**{**boxed, "partners": roll}, erase_box=box[:, None], fill=fill),
        "resizemix": MixPlan(**boxed, resized=np.full(B, 2, np.int8)),
        "fmix": MixPlan(**boxed, bitmap=np.zeros((B, H, W // 8), np.uint8)),
        "ricap": MixPlan(**four, corner=box[:, :2], shift=np.zeros((B, 4, 2), np.int32)),
        "erase": MixPlan(**alone, erase_box=box[:, None], fill=fill),
        "mixup, roll": MixPlan(**{**mixed, "partners": roll}),
        "noise": MixPlan(**alone, erase_box=box[:, None], fill=fill, noise=np.ones(B, np.int64)),
        "gridmask": MixPlan(**alone, grid=grid, turn=np.tile(np.float32([0.6, 0.8]), (B, 1)), fill=fill),
        "hide": MixPlan(**alone, cell=np.full(B, 16, np.int32), hidden=np.zeros((B, 14, 2), np.uint8), fill=fill),
        "nothing": MixPlan(**alone),
    }


def launch_of_mix(
    plan, source, target, *, read="nchw", write="nchw", size=(H, W), in_place=False, noise=False, all_of=0, targets=None
):
    """The kernel that ``mix`` would launch for one batch; images on ``meta`` have shapes and strides, no memory."""
    from mixcollate.kernels import fused, fused_targets, packed
    from mixcollate.kernels.tiling import VECTORS_OF_ALL, is_by_pixel, of_all_images, tiling_of
    from tests.ahead_of_time import TYPES

    formats = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
    images = torch.empty(B, 3, *size, dtype=source, device="meta").to(memory_format=formats[read])
    out = torch.empty(B, 3, *size, dtype=target, device="meta").to(memory_format=formats[write])
    layout = packed.pack(plan, "cpu").layout
    normalise = source == torch.uint8 and target != torch.uint8
    by_pixel = is_by_pixel(layout.entry, source.itemsize + target.itemsize)
    tiling = tiling_of(images, out, in_place=in_place, normalise=normalise, by_pixel=by_pixel)
    if all_of:
        tiling = of_all_images(tiling, all_of, VECTORS_OF_ALL)
    strides = [*images.stride(), *out.stride()]
    pointers = [f"*{TYPES[source]}", f"*{TYPES[target]}", "*i32", "*fp32", "*fp32"]
    elements = tiling.vectors * tiling.vec * tiling.group * layout.entry.images
    if noise:
        arguments = [pointers[1], "*i32", *out.stride()]
        elements = tiling.vectors * tiling.vec * tiling.channels
        return Launch(fused.noise_kernel, arguments, [layout.entry, tiling], elements, tiling.warps)
    rows, made, numbers = fused_targets.NO_ROWS, [pointers[1]] * 3, [0, 0]
    if targets is not None:
        rows = fused_targets._rows_of(targets, layout.partner_count, 1000, 0.1 if targets != "sparse" else 0.0)
        made = {"dense": ["*i64", "*fp32", "*fp32"], "sparse": ["*i64", "*i64", "*fp32"], "mixed": ["*fp32"] * 3}[
            targets
        ]
        numbers = [256, 4096]
    arguments = [*pointers, *made, *strides, *numbers]
    return Launch(fused.mix_kernel, arguments, [layout.entry, tiling, rows], elements, tiling.warps)


U8, BF16, F32 = torch.uint8, torch.bfloat16, torch.float32
NHWC = {"read": "nhwc", "write": "nhwc"}
CASES = {
    "pair u8 -> bf16, mixup": ("mixup", U8, BF16, {}),
    "pair u8 -> bf16, cutmix": ("cutmix", U8, BF16, {}),
    "pair u8 -> bf16, cutmix + erase": ("cutmix+erase", U8, BF16, {}),
    "pair u8 -> fp32, cutmix": ("cutmix", U8, F32, {}),
    "pair u8 -> u8, mixup": ("mixup", U8, U8, {}),
    "in place fp32, mixup": ("mixup", F32, F32, {"in_place": True}),
    "in place bf16, mixup": ("mixup", BF16, BF16, {"in_place": True}),
    "in place fp32, cutmix": ("cutmix", F32, F32, {"in_place": True}),
    "in place bf16, cutmix + erase": ("cutmix+erase", BF16, BF16, {"in_place": True}),
    "in place fp32, erase": ("erase", F32, F32, {"in_place": True}),
    "pair u8 -> bf16, mixup each its own": ("mixup, each", U8, BF16, {}),
    "pair u8 -> bf16, cutmix each its own": ("cutmix, each", U8, BF16, {}),
    "in place fp32, mixup each its own": ("mixup, each", F32, F32, {"in_place": True}),
    "in place fp32, cutmix each its own": ("cutmix, each", F32, F32, {"in_place": True}),
    "in place fp32, fmix": ("fmix", F32, F32, {"in_place": True}),
    "in place fp32, mixup, all of 256": ("mixup, roll", F32, F32, {"in_place": True, "all_of": 256}),
    "in place bf16, mixup, all of 256": ("mixup, roll", BF16, BF16, {"in_place": True, "all_of": 256}),
    "in place fp32, cutmix, all of 256": ("cutmix, roll", F32, F32, {"in_place": True, "all_of": 256}),
    "in place nhwc fp32, mixup, all of 256": ("mixup, roll", F32, F32, NHWC | {"in_place": True, "all_of": 256}),
    "in place fp32, cutmix, all of 1024": ("cutmix, roll", F32, F32, {"in_place": True, "all_of": 1024}),
    "in place u8, cutmix + erase, all of 256": ("cutmix+erase, roll", U8, U8, {"in_place": True, "all_of": 256}),
    "any partner u8 -> bf16, cutmix": ("cutmix, roll", U8, BF16, {}),
    "any partner u8 -> bf16, cutmix + erase": ("cutmix+erase, roll", U8, BF16, {}),
    "u8 -> bf16, resizemix": ("resizemix", U8, BF16, {}),
    "pair u8 -> bf16, fmix": ("fmix", U8, BF16, {}),
    "u8 -> bf16, ricap": ("ricap", U8, BF16, {}),
    "u8 -> bf16, gridmask": ("gridmask", U8, BF16, {}),
    "u8 -> bf16, hide and seek": ("hide", U8, BF16, {}),
    "u8 -> bf16, normalise only": ("nothing", U8, BF16, {}),
    "pair nhwc u8 -> nhwc bf16, cutmix": ("cutmix", U8, BF16, NHWC),
    "pair nhwc u8 -> nhwc bf16, cutmix + erase": ("cutmix+erase", U8, BF16, NHWC),
    "any partner nhwc u8 -> nhwc bf16": ("cutmix, roll", U8, BF16, NHWC),
    "nhwc u8 -> nhwc bf16, resizemix": ("resizemix", U8, BF16, NHWC),
    "nhwc u8 -> nhwc bf16, ricap": ("ricap", U8, BF16, NHWC),
    "nhwc u8 -> nhwc bf16, gridmask": ("gridmask", U8, BF16, NHWC),
    "nhwc u8 -> nhwc bf16, hide and seek": ("hide", U8, BF16, NHWC),
    "nhwc u8 -> nhwc u8, resizemix": ("resizemix", U8, U8, NHWC),
    "pair nhwc u8 -> nchw bf16, cutmix": ("cutmix", U8, BF16, {"read": "nhwc"}),
    "pair nhwc u8 -> nchw fp32, cutmix": ("cutmix", U8, F32, {"read": "nhwc"}),
    "any partner nhwc u8 -> nchw bf16": ("cutmix, roll", U8, BF16, {"read": "nhwc"}),
    "pair nchw u8 -> nhwc bf16, cutmix": ("cutmix", U8, BF16, {"write": "nhwc"}),
    "pair nchw u8 -> nhwc bf16, cutmix + erase": ("cutmix+erase", U8, BF16, {"write": "nhwc"}),
    "pair nchw u8 -> nhwc fp32, cutmix": ("cutmix", U8, F32, {"write": "nhwc"}),
    "pair nchw u8 -> nhwc u8, cutmix": ("cutmix", U8, U8, {"write": "nhwc"}),
    "any partner nchw u8 -> nhwc bf16": ("cutmix, roll", U8, BF16, {"write": "nhwc"}),
    "any partner nchw u8 -> nhwc fp32": ("cutmix, roll", U8, F32, {"write": "nhwc"}),
    "with targets: pair u8 -> bf16, cutmix": ("cutmix", U8, BF16, {"targets": "dense"}),
    "with targets: pair u8 -> bf16, cutmix + erase": ("cutmix+erase", U8, BF16, {"targets": "dense"}),
    "with targets: in place fp32, mixup": ("mixup", F32, F32, {"in_place": True, "targets": "sparse"}),
    "with targets: any partner u8 -> bf16, cutmix": ("cutmix, roll", U8, BF16, {"targets": "mixed"}),
    "noise bf16": ("noise", BF16, BF16, {"in_place": True, "noise": True}),
}


def launch_of_targets(kernel, dtype):
    """The kernels of soft targets and their loss, for 1000 classes and two labels a row."""
    from mixcollate.kernels import fused_targets
    from tests.ahead_of_time import TYPES

    if kernel == "dense":
        rows = fused_targets._rows_of("dense", 1, 1000, 0.1)
        return Launch(fused_targets.soft_targets_kernel, ["*i32", "*i64", "*fp32", "*fp32", 256, 4096], [rows], 1024, 4)
    logits, rows, numbers = f"*{TYPES[dtype]}", ["*fp32"] * 3, ["fp32", "fp32", "i32"]
    target, sources = (["*fp32", "*fp32"], 0) if "rows" in kernel else (["*fp32", "*i64"], 2)
    classes = 1000 if "gradient" in kernel else 21841
    rule = [classes, sources == 0, sources, True]
    if "loss" in kernel:
        block, warps = fused_targets._row_block(classes, sources == 0)
        arguments = [logits, *target, *rows, 1024, 1024, *numbers]
        return Launch(fused_targets.cross_entropy_kernel, arguments, [*rule, True, block], block, warps, True)
    arguments = [logits, *target, *rows, "*fp32", logits, 1024, 1024, *numbers, 1]
    return Launch(fused_targets.cross_entropy_gradient_kernel, arguments, [*rule, True, 1024], 1024, 4, True)


TARGETS = {
    "soft targets": ("dense", F32),
    "soft cross-entropy, 21841 classes bf16": ("loss", BF16),
    "its gradient, 1000 classes bf16": ("gradient", BF16),
    "soft cross-entropy of rows, 21841 classes bf16": ("loss of rows", BF16),
    "its gradient, 1000 classes bf16, of rows": ("gradient of rows", BF16),
}


def launch_of(name):
    if name in TARGETS:
        return launch_of_targets(*TARGETS[name])
    plan, source, target, options = CASES[name]
    return launch_of_mix(plans()[plan], source, target, **options)


def compile_case(name):
    return compile_for_h200(launch_of(name))


@pytest.fixture(scope="module")
def kernels():
    """All kernels, compiled by a process of its own: in this one Triton may be interpreting."""
    pytest.importorskip("triton")
    if not has_right_triton():
        pytest.skip(f"this torch's Triton does not compile the kernels: they need torch {FUSED_FROM}")
    from tests.ahead_of_time import compiling

    printed = compiling("tests.test_fused_aot", "--json")
    compiled = {name: Kernel(**fields) for name, fields in json.loads(printed).items()}
    print(table(compiled))
    return compiled


@pytest.mark.parametrize("name", [*CASES, *TARGETS])
def test_nothing_spills(kernels, name):
    assert kernels[name].spills == 0


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("with targets")])
def test_targets_cost_pixels_nothing(kernels, name):
    """Not their registers, up to a step of 8 for which a compiler may have its reasons; 48 let ten programs of 128
    threads run, of which the bytes under way are plenty. Nor the width of their accesses.
    """
    alone, together = kernels[name.removeprefix("with targets: ")], kernels[name]
    assert together.registers <= max(alone.registers + 8, 48)
    assert together.stores["16B"] >= alone.stores["16B"]


PIXELS = [name for name in CASES if not name.startswith("with targets")]


@pytest.mark.parametrize("name", PIXELS)
def test_values_stay_in_their_threads(kernels, name):
    """Channels are interleaved and separated in registers; what another thread holds would cost a wait."""
    assert kernels[name].exchanges == 0


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("pair", "in place", "any"))])
def test_registers(kernels, name):
    """64 let half the threads of a multiprocessor run. What erases both images of a pair may take 96: five programs of
    128 threads with 48 bytes each on their way are 30 KB, and 26 KB hide the memory's latency.
    """
    assert kernels[name].registers <= (96 if "cutmix + erase" in name else 64)


@pytest.mark.parametrize("name", PIXELS)
def test_stores_are_16_bytes_wide(kernels, name):
    """Except in noise, which few pixels get, and where a thread with as many registers would leave too few threads."""
    narrower = {"noise bf16": {"2B"}, "nhwc u8 -> nhwc u8, resizemix": {"8B"}}
    assert set(kernels[name].stores) == narrower.get(name, {"16B"})


@pytest.mark.parametrize("name", [name for name in PIXELS if name != "noise bf16"])
def test_all_is_read_before_anything_is_written(kernels, name):
    """So that loads wait for each other, not for stores; in a tile of all images, by all threads."""
    assert kernels[name].order == ("LDG BAR STG" if "all of" in name else "LDG STG")


def test_a_loss_of_rows_waits_for_logits_and_shares_together(kernels):
    """What is read after the threads have waited for each other would be waited for once more."""
    assert kernels["soft cross-entropy of rows, 21841 classes bf16"].order == "LDG BAR STG"


def test_programs_of_a_loss_of_rows_are_small(kernels):
    """Six or more of 128 threads at once, of which some read while others wait for each other."""
    assert kernels["soft cross-entropy of rows, 21841 classes bf16"].registers <= 80


def test_loads_are_as_wide_as_the_tile(kernels):
    """8 bytes of uint8 become 16 of bfloat16; what is already in the output's type comes 16 at a time."""
    assert kernels["pair u8 -> bf16, cutmix"].loads["8B"] == 6
    assert kernels["in place fp32, cutmix"].loads["16B"] == 6
    assert kernels["any partner u8 -> bf16, cutmix"].loads["8B"] == 6
    assert kernels["pair nhwc u8 -> nhwc bf16, cutmix"].loads["8B"] == 4
    assert kernels["pair nhwc u8 -> nchw bf16, cutmix"].loads["8B"] == 6
    assert kernels["pair nchw u8 -> nhwc bf16, cutmix"].loads["8B"] == 6


MOST_INSTRUCTIONS = {  # for each element, as Triton 3.6 and 3.8 compile them, and five in a hundred
    "pair u8 -> bf16, mixup": 9.2,
    "pair u8 -> bf16, cutmix": 10.2,
    "pair u8 -> bf16, cutmix + erase": 12.0,
    "in place fp32, cutmix": 10.4,
    "any partner u8 -> bf16, cutmix": 16.4,
    "any partner u8 -> bf16, cutmix + erase": 18.5,
    "pair nhwc u8 -> nhwc bf16, cutmix": 13.0,
    "pair nhwc u8 -> nhwc bf16, cutmix + erase": 15.7,
    "any partner nhwc u8 -> nhwc bf16": 23.8,
    "u8 -> bf16, resizemix": 19.0,
    "u8 -> bf16, gridmask": 25.0,
    "nhwc u8 -> nhwc bf16, resizemix": 19.0,
    "nhwc u8 -> nhwc bf16, ricap": 17.0,
    "nhwc u8 -> nhwc bf16, gridmask": 25.0,
    "nhwc u8 -> nhwc bf16, hide and seek": 18.5,
    "nhwc u8 -> nhwc u8, resizemix": 20.0,
    "its gradient, 1000 classes bf16": 31.0,
    "soft cross-entropy of rows, 21841 classes bf16": 50.0,  # with what is done once a row
    "its gradient, 1000 classes bf16, of rows": 26.5,
}


@pytest.mark.parametrize("name", MOST_INSTRUCTIONS)
def test_instructions(kernels, name):
    """At 3 bytes an element an H200 has time for 20 instructions a thread before they, not memory, set the pace, for
    27 at three quarters of that, which is the goal for any partner.
    """
    assert kernels[name].instructions <= MOST_INSTRUCTIONS[name]


def table(compiled):
    import triton

    head = f"{f'sm_90, {H} x {W}, triton {triton.__version__}':42} registers spills exchanges SASS/elem  loads / stores"
    return "\n".join([head, *(f"{name:42} {kernel}" for name, kernel in compiled.items())])


if __name__ == "__main__":
    compiled = {name: compile_case(name) for name in [*CASES, *TARGETS]}
    print(
        json.dumps({name: kernel._asdict() for name, kernel in compiled.items()})
        if "--json" in sys.argv
        else table(compiled)
    )
