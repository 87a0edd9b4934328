"""Every argument of the public surface, given what it cannot take: an error that names it and shows what came.

The calls are made from the signatures: each argument has a kind, and each kind its wrong values, so that an argument
that is new, or has another name, fails here until its kind is listed. An error counts as clear if this package raised
it (not torch, not Python beneath it), as a ValueError or TypeError whose message has the argument's name and the value.
"""

import copy
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mixcollate as mc
from mixcollate import kernels, schedules
from mixcollate.checks import shown

PACKAGE = str(Path(mc.__file__).parent)

# Wrong values by kind. Floats, text and containers of numbers are refused wherever one number is wanted.
NO_NUMBER: list[Any] = ["0.5", [0.5], (1, 2), {}, 1j, torch.tensor([0.5, 1]), np.zeros(2), object()]
NOT_FINITE: list[Any] = [math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.nan)]


def lying(epoch: int) -> Any:
    """A schedule that returns no number."""
    return "high"


def failing(epoch: int) -> Any:
    """A schedule that has no value for the first epoch."""
    return {}[epoch]


IMAGES = torch.rand(4, 3, 8, 8)
NO_TENSOR: list[Any] = [None, "images", 3, [1.0, 2.0], IMAGES.numpy(), object()]
ODD_TENSORS: list[Any] = [
    IMAGES.to_sparse(),
    IMAGES.to(torch.complex64),
    IMAGES.to(torch.float8_e4m3fn),
    torch._neg_view(IMAGES),
]
KINDS: dict[str, list[Any]] = {
    "positive or none": [*NO_NUMBER, *NOT_FINITE, 0, -1],
    "positive": [None, *NO_NUMBER, *NOT_FINITE, 0, -1],
    "positive or a schedule": [None, *NO_NUMBER, *NOT_FINITE, 0, -1, lying, failing],
    "probability": [None, *NO_NUMBER, *NOT_FINITE, -0.1, 1.1],
    "probability or a schedule": [None, *NO_NUMBER, *NOT_FINITE, -0.1, 1.1, lying, failing],
    "share": [None, *NO_NUMBER, *NOT_FINITE, 0, 1, -1],
    "number": [None, *NO_NUMBER, *NOT_FINITE],
    "count": [None, *NO_NUMBER, *NOT_FINITE, 0, -1, 1.5, 2.0, True],
    "count or none": [*NO_NUMBER, *NOT_FINITE, 0, -1, 1.5, 2.0, True],
    "count or 0": [None, *NO_NUMBER, *NOT_FINITE, -1, 1.5, 2.0, True],
    "whole number": [None, *NO_NUMBER, *NOT_FINITE, 1.5, 2.0, True],
    "seed": ["1", [1], 1j, *NOT_FINITE, -1, 1.5, 2**64, True],
    "smoothing": [None, *NO_NUMBER, *NOT_FINITE, -0.1, 1.1],
    "flag": [None, "no", 0, 1, [], 0.5, torch.tensor(True)],
    "pair of shares": [
        None,
        *NO_NUMBER[:5],
        0.5,
        (0.2,),
        (0.1, 0.2, 0.3),
        (0.8, 0.2),
        (-1, 1),
        (0, math.nan),
        ("a", 1),
    ],
    "pair of shares or none": [*NO_NUMBER[:5], 0.5, (0.2,), (0.1, 0.2, 0.3), (0.8, 0.2), (-1, 1), (0, math.nan)],
    "pair of positive numbers": [None, "ab", 3, (0, 1), (-1, 1), (2, 1), (1, math.inf), (1, math.nan), (1, None)],
    "pair of counts": [None, "12", 3, (0, 1), (2, 1), (1, 2.5), (1, None), (1, 2, 3), (1, math.inf)],
    "pair of counts or none": ["12", 3, (0, 1), (2, 1), (3, 3), (1, 2.5), (1, None), (1, 2, 3), (1, math.inf)],
    "sizes or none": ["12", 3, (), (-1,), (1.5,), (math.nan,), (None,), {2, 3}],
    "fill": [None, "black", 1j, math.nan, math.inf, (), (1, "a"), (1, math.nan), torch.eye(2), object()],
    "fill or none": ["black", 1j, math.nan, math.inf, (), (1, "a"), (1, math.nan), torch.eye(2), object()],
    "word": [None, "something else", 0, ["batch"], b"batch", object()],
    "word or none": ["something else", 0, ["batch"], b"batch", object()],
    "pairing": ["random", 0, None, ["matching"], b"flip", object()],
    "getter": ["labels", 0, ["default"], object()],
    "classes or none": [
        *NO_NUMBER[:1],
        b"4",
        [],
        (),
        {},
        1j,
        *NOT_FINITE,
        0,
        -1,
        1.5,
        True,
        (2, 0),
        (2, "a"),
        object(),
    ],
    "transforms": [None, 3, "MixUp", [], [3], [None], [mc.MixUp], mc.MixUp()],
    "transform or none": [3, "MixUp", mc.MixUp, [mc.MixUp()], object()],
    "chances or none": ["ab", 0.5, (0.5,), (0.5, math.nan), (0.5, -0.1), (0.9, 0.9), (0, 0), ("a", "b"), (0.5, None)],
    "function": [None, 3, "default_collate", [], object()],
    "key or none": [1.5, object(), {1: 2}, (1.5,), (None,)],
    "keys": [1.5, object(), (1.5,), (None,)],
    "statistic": ["0.5", 1j, math.nan, math.inf, (), (0.5, "a"), (0.5, math.nan, 1), object()],
    "deviation": ["0.5", 1j, math.nan, math.inf, (), (0.5, "a"), (0.5, math.nan, 1), object(), 0, -1, (1, 0, 1)],
    "dtype or none": ["float32", 3, torch.int32, torch.complex64, float, np.float32, object()],
    "memory format or none": ["channels_last", 3, torch.strided, object()],
    "implementation": [None, "triton", 0, ["auto"], object()],
    "device": [3.5, "nowhere", object(), [0]],
    "images": [*NO_TENSOR, *ODD_TENSORS, torch.tensor(1.0)],
    "shape": [*NO_TENSOR, torch.tensor(1.0)],
    "masks": [*NO_TENSOR, *ODD_TENSORS, torch.tensor(1.0), torch.zeros(3, 8, 8)],
    "labels or none": ["cat", 3, [1, 2], ODD_TENSORS[1][:, 0, 0, 0], torch.zeros(3), torch.arange(3), object()],
    "tensor or none": ["cat", 3, [1, 2], object()],
    "batch": [None, "images", 3, IMAGES.numpy(), object()],
    "samples": [None, "images", 3, [], [None], [IMAGES[0].numpy()], [IMAGES[0], IMAGES[0, :, :4]]],
    "out or none": ["out", 3, IMAGES.numpy(), IMAGES[:3], IMAGES.byte()],
    "plan": [None, "plan", 3, {}, mc.MixUp(), [mc.MixUp().make_plan(IMAGES)]],
    "stream or none": ["stream", 3, np.random.default_rng(0), object()],
    "loader": [None, 3, object()],
    "collate or none": [3, "collate", object(), mc.MixUp()],
    "logits": [*NO_TENSOR, *[odd[:, 0] for odd in ODD_TENSORS[1:]], torch.zeros(4), torch.arange(16).view(4, 4)],
    "target": [*NO_TENSOR, torch.zeros(4, 3), torch.zeros(3, 8), torch.zeros(4), torch.tensor([1, 2, 3, 9])],
    "weight or none": ["weight", 3, [1.0] * 8, torch.ones(3), torch.ones(8, dtype=torch.complex64)],
    "state": [None, {}, 3, "state", {"seed": 3}, {"seed": 4, "step": 0}, {"seed": 3, "step": -1}],
    "made by the package": [],
    "epoch or none": [*NO_NUMBER, *NOT_FINITE, -1, 1.5, True],
}
BY_NAME = {
    "alpha": "positive or a schedule",
    "beta": "positive or a schedule",
    "p": "probability or a schedule",
    "hide": "probability",
    "ratio": "share",
    "decay": "number",
    "length": "positive",
    "holes": "count",
    "attempts": "count",
    "rotate": "count or 0",
    "prefetch": "count",
    "seed": "seed",
    "num_classes": "classes or none",
    "ignore_index": "whole number",
    "mask_ignore_index": "whole number",
    "mask_classes": "count or none",
    "label_smoothing": "smoothing",
    **dict.fromkeys(
        ("inplace", "correct_lam", "nonempty", "inside", "clipped", "log_ratio", "invert", "eager"), "flag"
    ),
    **dict.fromkeys(("ignore_nan", "multi_label"), "flag"),
    "minmax": "pair of shares or none",
    "cutmix_minmax": "pair of shares or none",
    "scale": "pair of shares",
    "centre": "pair of shares",
    "count": "pair of counts",
    "tile": "pair of counts or none",
    "sizes": "sizes or none",
    "fill": "fill",
    "value": "fill",
    **dict.fromkeys(
        ("per", "placement", "interpolation", "targets", "label_mode", "reduction", "mode", "remode"), "word"
    ),
    "pairing": "pairing",
    "labels_getter": "getter",
    "transforms": "transforms",
    "transform": "transform or none",
    "mean": "statistic",
    "std": "deviation",
    "dtype": "dtype or none",
    "memory_format": "memory format or none",
    "impl": "implementation",
    "collate_fn": "function",
    **dict.fromkeys(("image_key", "label_key"), "key or none"),
    **dict.fromkeys(("mask_keys", "blend_keys", "keep_keys"), "keys"),
    "images": "images",
    "masks": "masks",
    "batch": "batch",
    "samples": "samples",
    "labels": "labels or none",
    "plan": "plan",
    "stream": "stream or none",
    "epoch": "epoch or none",
    "loader": "loader",
    "device": "device",
    "layout": "word or none",
    "collate": "collate or none",
    "logits": "logits",
    "target": "target",
    "weight": "weight or none",
    "pos_weight": "weight or none",
    "state": "state",
    **dict.fromkeys(("mixup_alpha", "cutmix_alpha"), "number"),
    **dict.fromkeys(("prob", "switch_prob", "reprob"), "probability"),
    "recount": "count",
}
"""The kind of an argument by its name, which means the same everywhere but for these:"""

ELSEWHERE = {
    ("RandomErasing", "ratio"): "pair of positive numbers",
    ("RandomErasing", "fill"): "fill or none",
    ("RandomChoice", "p"): "chances or none",
    ("RandomChoice", "per"): "word or none",
    ("MixupCollate", "alpha"): "positive or none",
    ("from_timm", "num_classes"): "classes or none",
    ("make_plan", "images"): "shape",
    ("make_plan", "labels"): "tensor or none",
    ("mix", "out"): "out or none",
    ("decide", "out"): "out or none",
    ("mix_samples", "out"): "out or none",
    ("SoftTarget.dense", "num_classes"): "count",
    ("until", "epoch"): "count or 0",
    ("until", "value"): "number",
    ("ramp", "value"): "number",
    ("ramp", "epochs"): "count",
    ("set_epoch", "epoch"): "count or 0",
    ("MixupCollate.set_epoch", "epoch"): "count or 0",
}


class Call(NamedTuple):
    """A public callable, and a call of it that works."""

    name: str
    function: Callable[..., Any]
    rest: dict[str, Any] = {}  # noqa: RUF012  # is never changed


def used(method: Any) -> Callable[..., Any]:
    """Make the transform and draw with it, so that schedules are asked."""

    def make(**options: Any) -> Any:
        return method(**options).make_plan(torch.empty(4, 3, 32, 32))

    make.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return make


PLAN = mc.MixUp().make_plan(IMAGES)
LOGITS = torch.randn(4, 8)
LABELS = torch.arange(4)
LOADER = mc.DeviceLoader(DataLoader([1, 2], collate_fn=mc.MixupCollate(seed=3)))
SURFACE = [
    *[Call(name, used(method)) for name, method in mc.methods.ALL.items()],
    Call("RandomChoice", used(mc.RandomChoice), {"transforms": [mc.MixUp(), mc.CutMix()]}),
    Call("Compose", used(mc.Compose), {"transforms": [mc.MixUp(), mc.CutMix()]}),
    Call("make_plan", mc.MixUp().make_plan, {"images": IMAGES}),
    Call("set_epoch", mc.MixUp().set_epoch, {"epoch": 3}),
    Call("replay", mc.MixUp(num_classes=4).replay, {"images": IMAGES, "labels": LABELS, "plan": PLAN}),
    Call("MixupCollate", mc.MixupCollate),
    Call("from_timm", mc.MixupCollate.from_timm, {"mixup_alpha": 1.0}),
    Call("MixupCollate.mix", mc.MixupCollate().mix, {"batch": (IMAGES, torch.rand(4, 8))}),
    Call("MixupCollate.set_epoch", mc.MixupCollate().set_epoch, {"epoch": 3}),
    Call("MixupCollate.load_state_dict", mc.MixupCollate(seed=3).load_state_dict, {"state": {"seed": 3, "step": 0}}),
    Call("DeviceLoader", mc.DeviceLoader, {"loader": DataLoader([1, 2])}),
    Call("DeviceLoader.load_state_dict", LOADER.load_state_dict, {"state": LOADER.state_dict()}),
    Call("mix", kernels.mix, {"images": IMAGES, "plan": PLAN}),
    Call("decide", kernels.prepare.decide, {"images": IMAGES, "plan": PLAN}),
    Call("mix_masks", kernels.mix_masks, {"masks": IMAGES[:, 0], "plan": PLAN}),
    Call("mix_samples", kernels.mix_samples, {"samples": list(IMAGES), "plan": PLAN, "out": torch.empty_like(IMAGES)}),
    Call("pack", kernels.pack, {"plan": PLAN, "device": "cpu"}),
    Call("PackedPlan.copy_", kernels.pack(PLAN, "cpu").copy_, {"plan": PLAN}),
    Call("soft_cross_entropy", mc.soft_cross_entropy, {"logits": LOGITS, "target": LABELS}),
    Call("soft_binary_cross_entropy", mc.soft_binary_cross_entropy, {"logits": LOGITS, "target": torch.rand(4, 8)}),
    Call("soft_accuracy", mc.soft_accuracy, {"logits": LOGITS, "target": LABELS}),
    Call("SoftTarget.dense", mc.SoftTarget(LABELS[:, None], torch.ones(4, 1)).dense, {"num_classes": 4}),
    Call("until", schedules.until, {"epoch": 3}),
    Call("ramp", schedules.ramp, {"value": 0.5, "epochs": 3}),
]


def arguments(call: Call) -> list[str]:
    parameters = inspect.signature(call.function).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def kind(call: Call, argument: str) -> str | None:
    return ELSEWHERE.get((call.name, argument)) or BY_NAME.get(argument)


WRONG = [
    (call, argument, value)
    for call in SURFACE
    for argument in arguments(call)
    for value in KINDS.get(kind(call, argument) or "", [])
]


def complaint(call: Call, argument: str, value: Any) -> str | None:
    """What is wrong with how a wrong call ends, if anything."""
    try:
        result = call.function(**{**call.rest, argument: value})
    except (ValueError, TypeError) as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where, message = "" if trace is None else trace.tb_frame.f_code.co_filename, str(error)
        if not where.startswith(PACKAGE):
            return f"raised by {where}: {message}"
        if argument not in message:
            return f"does not name {argument}: {message}"
        seen = [shown(value), repr(value), str(value), type(value).__name__]
        if isinstance(value, (torch.Tensor, np.ndarray)):
            seen += [str(tuple(value.shape)), str(value.dtype), str(getattr(value, "layout", "?")), "a negated view"]
            seen += [str(number) for number in value.tolist()] if value.ndim == 1 else []
        elif isinstance(value, (tuple, list, dict, str)):  # a message may show the part that is wrong
            parts = value.values() if isinstance(value, dict) else value
            seen += [text for part in parts for text in (repr(part), type(part).__name__)]
        seen += ["in epoch 0"] if inspect.isfunction(value) else []
        return None if any(text in message for text in seen) else f"does not show {shown(value)}: {message}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"accepted: {str(result)[:60]}"


def test_every_argument_has_a_kind():
    """A new argument, or a new name, must be listed here."""
    unknown = [
        f"{call.name}({argument})" for call in SURFACE for argument in arguments(call) if not kind(call, argument)
    ]
    assert not unknown, "list the kind of these arguments in BY_NAME or ELSEWHERE"
    known = {(call.name, argument) for call in SURFACE for argument in arguments(call)}
    assert ELSEWHERE.keys() <= known
    assert BY_NAME.keys() <= {argument for _, argument in known}


def test_the_surface_is_all_that_is_public():
    listed = {call.name.partition(".")[0] for call in SURFACE}
    made_elsewhere = {"MixBatch", "MixPlan", "Draw", "MixTransform", "ErasingTransform"}
    assert set(mc.__all__) - made_elsewhere <= listed
    assert {name for name in kernels.__all__ if inspect.isfunction(getattr(kernels, name))} <= listed


MADE = [
    *[method() for method in mc.methods.ALL.values()],
    mc.RandomChoice([mc.MixUp(), mc.CutMix()]),
    mc.Compose([mc.MixUp(), mc.Cutout()]),
    mc.MixupCollate(),
    mc.MixupCollate.from_timm(),
    mc.DeviceLoader(DataLoader([1, 2]), "cpu"),
]


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
def test_what_was_checked_cannot_be_set_past_its_check(made):
    """Nor can what does nothing once the object is made; what schedules may change is checked whenever it is used."""
    kind = type(made)
    asked = {*inspect.signature(kind).parameters, *inspect.signature(getattr(kind, "from_timm", kind)).parameters}
    asked |= {"collate_fn", "batch_size"} if kind is mc.DeviceLoader else set()
    scheduled = {"p", "alpha", "beta"} & vars(made).keys() - ({"p"} if kind is mc.RandomChoice else set())
    before = dict(vars(made))
    for name in asked - {"options"} - scheduled:
        with pytest.raises(AttributeError, match=f"^{name} cannot be changed after a {kind.__name__} is made"):
            setattr(made, name, "something else")
    assert vars(made) == before
    for name in scheduled:
        other = copy.deepcopy(made)
        setattr(other, name, "something else")
        with pytest.raises(TypeError, match=f"^{name} must be .* got 'something else'"):
            other.make_plan(torch.empty(4, 3, 32, 32))


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
@pytest.mark.parametrize("name", ["enabled", "mixup_enabled"])
def test_a_switch_acts_or_says_where_it_is(made, name):
    made = copy.deepcopy(made)
    if isinstance(made, mc.MixupCollate):
        setattr(made, name, False)
        assert not made.enabled
        return
    error = RuntimeError if isinstance(made, mc.DeviceLoader) else AttributeError  # this one's loader has no collate
    with pytest.raises(error, match=f"^{name} is a switch of MixupCollate, not of|^cannot find the MixupCollate"):
        setattr(made, name, False)


def test_a_class_that_is_made_of_one_may_set_its_own():
    class Stronger(mc.MixUp):
        def __init__(self, alpha=1.0, **options):
            super().__init__(alpha=alpha, **options)
            self.num_classes_given = self.num_classes = 3
            self.enabled = True

    class Named(mc.MixupCollate):
        def __init__(self, num_classes):
            super().__init__(num_classes=num_classes)
            self.num_classes = num_classes

    class Here(mc.DeviceLoader):
        def __init__(self, loader):
            super().__init__(loader, "cpu")
            self.prefetch = 3

    stronger = Stronger()
    stronger.enabled = False  # a switch of its own
    assert not stronger.enabled
    assert Stronger(num_classes=4).num_classes == Named(3).num_classes == Here(DataLoader([1, 2])).prefetch == 3


def test_the_calls_work_when_nothing_is_wrong():
    for call in SURFACE:
        call.function(**call.rest)


def test_there_are_many():
    assert len(WRONG) >= 400


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:.*quantize")
@pytest.mark.parametrize("call", SURFACE, ids=[call.name for call in SURFACE])
def test_wrong_calls_are_refused_clearly(call):
    wrong = [(argument, value) for one, argument, value in WRONG if one is call]
    complaints = {f"{a}={shown(v)}": said for a, v in wrong if (said := complaint(call, a, v)) is not None}
    assert not complaints, "\n" + "\n".join(f"  {call.name}({made}) {said}" for made, said in complaints.items())
