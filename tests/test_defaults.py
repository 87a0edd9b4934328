"""The default of every public argument, by a table; and what the README says of them."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

import mixcollate as mc
from mixcollate.plan import FAR
from tests.test_wrong_calls import SURFACE

README = (Path(__file__).parents[1] / "README.md").read_text()
MIXING = {
    "labels_getter": "default",
    "p": 1.0,
    "per": "pair",
    "pairing": "matching",
    "targets": "dense",
    "label_smoothing": 0.0,
    "label_mode": "lerp",
    "ignore_index": -100,
    "inplace": False,
}
ERASING = {"p": 1.0, "per": "sample", "inplace": False, "fill": 0.0}
CONTAINER = {name: default for name, default in MIXING.items() if name not in ("p", "per", "pairing")}
DEFAULTS = {
    "MixUp": {**MIXING, "alpha": 1.0},
    "CutMix": {**MIXING, "alpha": 1.0, "placement": "clipped", "correct_lam": True, "nonempty": False},
    "RICAP": {**MIXING, "beta": 0.3},
    "ResizeMix": {**MIXING, "scale": (0.1, 0.8), "interpolation": "bilinear", "clipped": False},
    "FMix": {**MIXING, "alpha": 1.0, "decay": 3.0},
    "Mosaic": {**MIXING, "centre": (0.2, 0.8)},
    "Cutout": {**ERASING, "length": 0.5, "holes": 1, "inside": False},
    "RandomErasing": {
        **{name: default for name, default in ERASING.items() if name != "fill"},
        "p": 0.5,
        "scale": (0.02, 0.33),
        "ratio": (0.3, 3.3),
        "value": 0.0,
        "log_ratio": True,
        "count": (1, 1),
        "attempts": 10,
    },
    "GridMask": {**ERASING, "p": 0.8, "ratio": 0.6, "rotate": 360, "invert": False},
    "HideAndSeek": {**ERASING, "hide": 0.5},
    "RandomChoice": CONTAINER,
    "Compose": CONTAINER,
    "replay": {"impl": "auto"},
    "MixupCollate": {
        "collate_fn": default_collate,
        "mask_keys": (),
        "blend_keys": (),
        "keep_keys": (),
        "mask_ignore_index": 255,
        "eager": False,
    },
    "from_timm": {  # timm's own
        "mixup_alpha": 1.0,
        "cutmix_alpha": 0.0,
        "prob": 1.0,
        "switch_prob": 0.5,
        "mode": "batch",
        "correct_lam": True,
        "label_smoothing": 0.1,
        "num_classes": 1000,
        "multi_label": False,
        "reprob": 0.0,
        "remode": "pixel",
        "recount": 1,
    },
    "DeviceLoader": {"prefetch": 1},
    "MixupCollate.mix": {"inplace": False},
    "mix": {"impl": "auto"},
    "decide": {"impl": "auto"},
    "soft_cross_entropy": {"ignore_index": -100, "ignore_nan": True, "label_smoothing": 0.0, "reduction": "mean"},
    "soft_binary_cross_entropy": {"ignore_nan": True, "label_smoothing": 0.0, "reduction": "mean"},
    "soft_accuracy": {"ignore_index": -100},
    "SoftTarget.dense": {"ignore_index": -100, "label_smoothing": 0.0},
    "until": {"value": 1.0},
}
"""By callable and argument, where it is not ``None``."""


@pytest.mark.parametrize("call", SURFACE, ids=[call.name for call in SURFACE])
def test_defaults(call):
    parameters = inspect.signature(call.function).parameters.values()
    found = {p.name: p.default for p in parameters if p.default is not p.empty and p.default is not None}
    assert found == DEFAULTS.get(call.name, {})
    assert all(type(found[name]) is type(value) for name, value in DEFAULTS.get(call.name, {}).items())


@pytest.mark.parametrize("name", mc.methods.ALL)
def test_the_readme_tells_the_same(name):
    (row,) = re.findall(rf"^\| `{name}` \| (.*)$", README, re.MULTILINE)
    for argument, value in re.findall(r"`(\w+)=([^`]+)`", row):
        assert DEFAULTS[name][argument] == ast.literal_eval(value)


# What a default means, where it depends on the images.


@pytest.mark.parametrize(
    ("side", "cells"), [(448, {32, 64, 88, 112, FAR}), (224, {16, 32, 44, 56, FAR}), (32, {2, 5, 6, 8, FAR})]
)
def test_hide_and_seek_s_sizes(side, cells):
    """The authors' at 224 pixels, scaled to the shorter side; one of them leaves the image as it is."""
    plan = mc.HideAndSeek(seed=0).make_plan(torch.empty(200, 3, side, side))
    assert set(plan.cell.tolist()) == cells
    untouched = plan.hidden[plan.cell == FAR]
    assert len(untouched) > 20
    assert not untouched.any()


@pytest.mark.parametrize(("side", "low", "high"), [(224, 96, 223), (32, 14, 31)])
def test_gridmask_s_tiles(side, low, high):
    """The authors' 96 to 223 at 224 pixels; its holes are erased, turned by any angle."""
    plan = mc.GridMask(seed=0, p=1.0).make_plan(torch.empty(4000, 3, side, side))
    assert (plan.grid[:, 0].min(), plan.grid[:, 0].max()) == (low, high)
    assert not plan.grid[:, 4].any()
    assert len(np.unique(plan.turn, axis=0)) == 360
    assert mc.GridMask(invert=True, p=1.0).make_plan(torch.empty(9, 3, side, side)).grid[:, 4].all()


@pytest.mark.parametrize(("size", "side"), [((32, 32), 16), ((64, 40), 20)])
def test_cutout_s_length(size, side):
    boxes = mc.Cutout(seed=0).make_plan(torch.empty(200, 3, *size)).erase_box
    assert boxes.shape[1] == 1
    assert (boxes[..., 2:] - boxes[..., :2]).max((0, 1)).tolist() == [side, side]


@pytest.mark.parametrize("name", [name for name, method in mc.methods.ALL.items() if not method.mixes])
def test_erased_pixels_become_zero(name):
    """Which is the mean after normalising."""
    images = torch.ones(16, 3, 32, 32)
    transform = mc.methods.ALL[name](p=1.0, seed=0)
    plan = transform.make_plan(images)
    assert not plan.fill.any()
    assert plan.noise is None
    assert not plan.fill_mean
    assert set(transform(images).unique().tolist()) == {0.0, 1.0}
