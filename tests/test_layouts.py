"""All plans of one transform pack alike: their layout follows from what was asked for, never from the numbers drawn.

Else a captured CUDA graph would stop taking plans, or a kernel would be compiled in the middle of a training.
"""

from itertools import product
from types import SimpleNamespace

import pytest
import torch

import mixcollate as mc
from mixcollate.draw import draw_from
from mixcollate.kernels import packed
from mixcollate.kernels.packed import pack
from mixcollate.kernels.support import FUSED_FROM, has_right_triton
from mixcollate.stream import numbers
from tests.simulated_kernel import Kernel
from tests.simulated_streams import SimulatedStreams

BATCHES = {1: 8, 2: 12, 3: 8, 8: 4, 256: 2}  # and how many plans: in small batches pairs happen by chance
PAIRINGS = ["matching", "shuffle", "roll", "flip"]
ASKED = [
    (per, pairing)
    for per, pairing in product(["pair", "sample", "batch"], PAIRINGS)
    if per != "pair" or pairing in ("matching", "flip")
]
MIXING = {
    "MixUp": mc.MixUp,
    "MixUp, alpha by epoch": lambda **o: mc.MixUp(alpha=lambda epoch: float(epoch % 3), **o),
    "CutMix": mc.CutMix,
    "ResizeMix": mc.ResizeMix,
    "FMix": mc.FMix,
    "RICAP": mc.RICAP,
    "Mosaic": mc.Mosaic,
    "choice": lambda **o: mc.RandomChoice([mc.MixUp(**o), mc.CutMix(**o)], per=o["per"], p=[0.5, 0.3]),
    "choice by sample": lambda **o: mc.RandomChoice([mc.MixUp(**o), mc.CutMix(**o)], per="sample"),
    "mix or erase": lambda **o: mc.RandomChoice([mc.MixUp(**o), mc.RandomErasing(0.5)], per=o["per"]),
    "four or two": lambda **o: mc.RandomChoice([mc.MixUp(**o), mc.RICAP(**o)], per=o["per"]),
    "twice or once": lambda **o: mc.RandomChoice([MIXING["twice"](**o), mc.CutMix(**o)], per=o["per"]),
    "twice or twice": lambda **o: mc.RandomChoice([MIXING["twice"](**o), MIXING["twice"](**o)], per=o["per"]),
    "twice": lambda **o: mc.Compose([mc.MixUp(**o), mc.CutMix(**o)]),
    "mix, then erase": lambda **o: mc.Compose([mc.MixUp(**o), mc.RandomErasing(0.25)]),
}
ERASING = {
    "Cutout": lambda p: mc.Cutout(p=p),
    "RandomErasing": lambda p: mc.RandomErasing(p, count=(1, 4)),
    "GridMask": lambda p: mc.GridMask(p=p),
    "HideAndSeek": lambda p: mc.HideAndSeek(p=p, sizes=(0, 3, 5, 8)),
}
CHANCES = [0.05, 0.5, 1, lambda epoch: epoch % 5 / 4]


def assert_alike(transform, batch, plans):
    first = None
    for step in range(plans):
        drawn = draw_from(numbers(1, 0, step), (batch, 3, 16, 24), transform.pairing, step)
        plan = transform.draw_plan(drawn)
        packed = pack(plan, "cpu")
        first = first or packed
        assert packed.layout is first.layout  # of which a kernel's constants are made
    first.copy_(plan)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", MIXING)
def test_what_is_mixed_packs_alike(name, batch):
    for (per, pairing), p in product(ASKED, CHANCES):
        assert_alike(MIXING[name](per=per, pairing=pairing, p=p), batch, BATCHES[batch])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ERASING)
def test_what_is_erased_packs_alike(name, batch):
    for p in CHANCES:
        assert_alike(ERASING[name](p), batch, 3 * BATCHES[batch])


@pytest.mark.parametrize(
    "name, per, mutual", [("MixUp", "pair", True), ("MixUp", "sample", False), ("mix or erase", "pair", True)]
)
def test_pairs_stay_pairs_whatever_is_drawn(name, per, mutual):
    """Of 8 images 4 entries; numbers of the mixing once where the images of a pair share them."""
    transform = MIXING[name](per=per, pairing="matching", p=0.5)
    for step in range(20):
        packed = pack(transform.draw_plan(draw_from(numbers(2, 0, step), (8, 3, 16, 24), "matching")), "cpu")
        assert (packed.layout.entries, packed.layout.paired, packed.layout.mutual) == (4, True, mutual)
        again = packed.unpack()
        assert pack(again, "cpu").layout is packed.layout


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", ["MixUp", "choice", "mix or erase", "mix, then erase", "four or two"])
@pytest.mark.parametrize("per, pairing", [("pair", "matching"), ("sample", "shuffle"), ("sample", "flip")])
def test_a_run_of_many_plans_compiles_one_kernel(name, per, pairing, in_place, monkeypatch):
    """Whatever is drawn; as ``launch`` counts kernels, which asks for another where Triton would."""
    if not has_right_triton():
        pytest.skip(f"this torch's Triton does not launch the kernels: they need torch {FUSED_FROM}")
    fused = pytest.importorskip("mixcollate.kernels.fused", reason="Triton is not installed")
    from mixcollate.kernels import launch

    kernel = Kernel()
    monkeypatch.setattr(launch, "_COMPILED", {})
    monkeypatch.setattr(launch, "driver", SimpleNamespace(active=SimpleNamespace(get_current_stream=lambda device: 0)))
    monkeypatch.setattr(fused, "mix_kernel", kernel)
    transform = MIXING[name](per=per, pairing=pairing, p=CHANCES[-1])
    images = torch.zeros(8, 3, 16, 24)
    out = images if in_place else torch.empty_like(images)
    for step in range(60):
        plan = transform.draw_plan(draw_from(numbers(3, 0, step), (8, 3, 16, 24), transform.pairing, step))
        fused.mix(images, pack(plan, "cpu"), out, affine=None)
    assert kernel.compiled == len(launch._COMPILED) == 1
    fused.mix(images[:, :, :8], pack(mc.MixUp().make_plan(images[:, :, :8]), "cpu"), out[:, :, :8], affine=None)
    assert kernel.compiled == 2  # so that what is counted is what is compiled


@pytest.mark.parametrize("seed", range(30))
def test_a_plan_overtakes_what_is_queued_and_is_there_when_it_is_read(seed):
    streams, host = SimulatedStreams(seed), torch.device("cpu")
    plans, images = [torch.full((4,), step) for step in range(1, 6)], torch.zeros(4)
    with streams:
        for words in plans:
            images += packed._overtaking(words, host, streams)
    assert all(mark is None for _, mark in packed.copy_stream(host, streams).queue), "a copy waits for the pixels"
    streams.synchronize()
    assert images.tolist() == [15] * 4
