"""Random nests of transforms on random batches, against a loop over pixels that knows a plan's fields and nothing else.

The loop is written from the fields' documentation, in plain Python and NumPy; it shares no code with the package.
"""

import itertools
import math
import re
import statistics
from unittest import mock

import numpy as np
import pytest
import torch

hypothesis = pytest.importorskip("hypothesis", reason="Hypothesis is not installed")

from hypothesis import HealthCheck, Phase, event, given, reject, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import mixcollate as mc  # noqa: E402
from mixcollate.kernels import host, mix, mix_masks  # noqa: E402

NORMAL = statistics.NormalDist()
DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]
CLASSES = 5


def oracle(images, plan, dtype, mean=None, std=None):
    """``[B, C, H, W]`` in ``dtype``: one pass after another, each pixel by itself."""
    scale = bias = None
    levels = 255.0 if images.dtype == torch.uint8 and dtype.is_floating_point else 1.0
    if mean is not None or levels != 1:
        std = 1.0 if std is None else std
        scale, bias = np.float32(1 / (levels * std)), np.float32(-(mean or 0.0) / std)
    while plan is not None:
        images = one_pass(images, plan, dtype, scale, bias)
        plan, scale, bias = plan.then, None, None
    return images


def one_pass(images, plan, dtype, scale, bias):
    real = np.float64 if images.dtype == torch.float64 else np.float32
    values = images.to(torch.float64 if real is np.float64 else torch.float32).numpy()
    made = np.empty(values.shape, real)
    for b, row, col in itertools.product(range(values.shape[0]), *map(range, values.shape[2:])):
        pixel = mixed_pixel(values, plan, b, row, col, integer=not dtype.is_floating_point)
        if scale is not None:
            pixel = pixel * scale + bias
        fill = fill_at(values.shape, plan, b, row, col, integer=not dtype.is_floating_point)
        made[b, :, row, col] = pixel if fill is None else fill
    return torch.from_numpy(made).to(dtype)


def mixed_pixel(values, plan, b, row, col, *, integer):
    """``[C]``: the pixel at ``row``, ``col`` of image ``b``, mixed."""
    real = values.dtype.type
    own = values[b, :, row, col]
    if plan.corner is not None:
        piece = 2 * bool(row >= plan.corner[b, 0]) + bool(col >= plan.corner[b, 1])
        source = b if piece == 0 else plan.partners[b, piece - 1]
        down, across = plan.shift[b, piece]
        own = values[source, :, row + down, col + across]
    if plan.own_outside is None:
        return own
    share = plan.own_outside[b]
    if plan.box is not None:
        top, left, bottom, right = plan.box[b]
        inside = top <= row < bottom and left <= col < right
        if inside and plan.bitmap is not None:
            inside = bool(plan.bitmap[b, row, col // 8] >> (col % 8) & 1)
        share = plan.own_inside[b] if inside else share
    if share == 1:
        return own
    other = values[plan.partners[b, 0]]
    if plan.resized is not None and plan.resized[b]:
        other = resized_pixel(other, plan.box[b], row, col, smooth=plan.resized[b] == 2, integer=integer)
    else:
        other = other[:, row, col]
    if share == 0:
        return other
    difference = (1 - share) * (other - own)
    return (own + (np.round(difference) if integer else difference)).astype(real)


def resized_pixel(other, box, row, col, *, smooth, integer):
    """``[C]``: what ``other [C, H, W]``, shown whole inside the box, has at ``row``, ``col``; centres are aligned."""
    real = other.dtype.type
    place, nearest = [], []
    for at, first, last, length in ((row, box[0], box[2], other.shape[1]), (col, box[1], box[3], other.shape[2])):
        half = real(0.5)
        step = real(length) * (real(1) / real(last - first))  # how torch divides a number by a tensor
        exact = (real(at - first) + half) * step - half
        place.append(min(max(exact, real(0)), real(length - 1)))
        nearest.append((2 * int(at - first) + 1) * length // (2 * int(last - first)))
    if not smooth:
        return other[:, nearest[0], nearest[1]]
    above, before = int(place[0]), int(place[1])
    below, after = min(above + 1, other.shape[1] - 1), min(before + 1, other.shape[2] - 1)
    down, across = real(place[0] - real(above)), real(place[1] - real(before))
    upper = other[:, above, before] + across * (other[:, above, after] - other[:, above, before])
    lower = other[:, below, before] + across * (other[:, below, after] - other[:, below, before])
    made = upper + down * (lower - upper)
    return np.round(made) if integer else made


def fill_at(shape, plan, b, row, col, *, integer):
    """``[C]``: what an erased pixel becomes; ``None`` where nothing is erased."""
    if plan.fill is None:
        return None
    chosen = None
    if plan.erase_box is not None:
        for n, (top, left, bottom, right) in enumerate(plan.erase_box[b]):
            chosen = n if top <= row < bottom and left <= col < right else chosen
    if plan.grid is not None and on_grid(shape, plan, b, row, col):
        chosen = 0
    if plan.hidden is not None:
        side = int(plan.cell[b])
        down, across = row // side, col // side
        if plan.hidden[b, down, across // 8] >> (across % 8) & 1:
            chosen = 0
    if chosen is None:
        return None
    channels, height, width = shape[1:]
    if plan.noise is not None and plan.noise[b]:
        places = [(c * height + row) * width + col for c in range(channels)]
        return np.array([noise_at(place, int(plan.noise[b]), integer=integer) for place in places])
    fill = plan.fill[b, chosen]
    return np.broadcast_to(fill, channels)


def on_grid(shape, plan, b, row, col):
    tile, hole, down, across, inverted = map(int, plan.grid[b])
    if tile == 0:
        return False
    cosine, sine = plan.turn[b]
    y, x = np.float32(row) + np.float32(0.5 - shape[2] / 2), np.float32(col) + np.float32(0.5 - shape[3] / 2)
    row, col = math.floor(cosine * y - sine * x), math.floor(sine * y + cosine * x)
    return ((row + down) % tile < hole and (col + across) % tile < hole) != bool(inverted)


def noise_at(place, key, *, integer):
    bits = scrambled((scrambled(place) + key) % 2**32)
    return bits >> 24 if integer else NORMAL.inv_cdf(((bits >> 16) + 0.5) / 2**16)


def scrambled(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
    x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def noisy(shape, plan):
    """``[B, 1, H, W]`` bool: pixels that any pass may have filled with noise, here or in an image that was mixed in."""
    if plan is None:
        return torch.zeros(shape[0], 1, 1, 1, dtype=torch.bool)
    here = torch.zeros(shape[0], 1, 1, 1, dtype=torch.bool)
    if plan.noise is not None:
        here[:, 0, 0, 0] = torch.from_numpy(plan.noise != 0)
    return here | noisy(shape, plan.then) | (here.any() & mixes(plan.then))


def mixes(plan):
    """Whether this pass, or one after it, takes pixels from partners."""
    return plan is not None and (plan.mixes or mixes(plan.then))


def target_oracle(labels, plan):
    """``[B, CLASSES]`` float64: each pass hands on what the last one made."""
    rows = np.eye(CLASSES)[labels]
    while plan is not None:
        sources = np.concatenate([np.arange(len(rows))[:, None], plan.partners], 1)
        rows = (plan.shares[:, :, None].astype(np.float64) * rows[sources]).sum(1)
        plan = plan.then
    return rows


PROBABILITY = st.sampled_from([0.0, 0.3, 1.0])
ALONE = st.sampled_from(["sample", "batch"])
FILL = st.sampled_from([0.0, 7.0, 200.5, "noise", "channel_noise"])
RANGE = st.sampled_from([(0.1, 0.8), (0.5, 0.5), (0.9, 1.0)])


def per_of(pairing):
    return st.sampled_from(["pair", "sample", "batch"]) if pairing in ("matching", "flip") else ALONE


def mixing(pairing):
    """Every mixing method, whose members may stand in one ``RandomChoice``."""
    every = {"p": PROBABILITY, "per": per_of(pairing), "pairing": st.just(pairing)}
    alpha = st.sampled_from([0.2, 1.0, 5.0])
    return st.one_of(
        st.builds(mc.MixUp, alpha=alpha, **every),
        st.builds(
            mc.CutMix, alpha=alpha, placement=st.sampled_from(["clipped", "inside", "timm"]), correct_lam=st.booleans(),
            minmax=st.sampled_from([None, (0.2, 0.8)]), **every,
        ),
        st.builds(mc.RICAP, beta=alpha, **every),
        st.builds(
            mc.ResizeMix, scale=RANGE, interpolation=st.sampled_from(["bilinear", "nearest"]), clipped=st.booleans(),
            **every,
        ),
        st.builds(mc.FMix, alpha=alpha, decay=st.sampled_from([1.0, 3.0]), **every),
        st.builds(mc.Mosaic, centre=st.sampled_from([(0.2, 0.8), (0.0, 1.0)]), **every),
    )  # fmt: skip


ERASING = st.one_of(
    st.builds(
        mc.Cutout, length=st.sampled_from([0.2, 0.5, 4]), holes=st.integers(1, 3), inside=st.booleans(), fill=FILL,
        p=PROBABILITY, per=ALONE,
    ),
    st.builds(
        mc.RandomErasing, p=PROBABILITY, scale=st.sampled_from([(0.02, 0.33), (0.5, 1.0)]), value=FILL,
        count=st.sampled_from([(1, 1), (1, 4)]), per=ALONE,
    ),
    st.builds(
        mc.GridMask, tile=st.sampled_from([None, (2, 7)]), ratio=st.sampled_from([0.3, 0.6]),
        rotate=st.sampled_from([1, 45, 360]), invert=st.booleans(), p=PROBABILITY, fill=FILL, per=ALONE,
    ),
    st.builds(
        mc.HideAndSeek, sizes=st.sampled_from([None, (0, 1), (2, 5)]), hide=st.sampled_from([0.1, 0.5, 1.0]),
        fill=FILL, p=PROBABILITY, per=ALONE,
    ),
)  # fmt: skip


def several(transforms):
    return st.lists(transforms, min_size=1, max_size=3)


@st.composite
def nests(draw):
    """A method, or containers of methods and containers, two deep."""
    pairing = draw(st.sampled_from(["matching", "shuffle", "roll", "flip"]))
    one, per = mixing(pairing), per_of(pairing)
    both = st.one_of(
        one,
        ERASING,
        st.builds(mc.RandomChoice, several(one), per=per),
        st.builds(mc.RandomChoice, several(ERASING), per=ALONE),
    )
    deep = st.one_of(both, st.builds(mc.Compose, several(both)))
    return draw(
        st.one_of(deep, st.builds(mc.Compose, several(deep)), st.builds(mc.RandomChoice, several(deep), per=ALONE))
    )


LAYOUTS = ["contiguous", "channels last", "every other column", "turned", "reversed batch", "one image for all"]


def laid_out(images, layout):
    """The same pixels, otherwise in memory; and the memory, which nobody may touch but through the images."""
    batch, channels, height, width = images.shape
    if layout == "channels last":
        return images.clone(memory_format=torch.channels_last)
    if layout == "every other column":
        return images.new_full((batch, channels + 1, height, 2 * width + 1), 3)[:, 1:, :, 1::2].copy_(images)
    if layout == "turned":
        return images.new_full((batch, channels, width, height), 3).mT.copy_(images)
    if layout == "reversed batch":
        return images.new_full((channels, height, batch, width), 3).permute(2, 0, 1, 3).copy_(images)
    return images.clone()


@st.composite
def batches(draw):
    sizes = st.one_of(st.integers(1, 9), st.integers(1, 40))
    shape = draw(st.sampled_from([0, 1, 2, 3, 4, 5])), draw(st.integers(1, 4)), draw(sizes), draw(sizes)
    numbers = np.random.default_rng(draw(st.integers(0, 2**16)))
    dtype = draw(st.sampled_from(DTYPES))
    levels = torch.zeros(shape, dtype=torch.uint8) + torch.from_numpy(numbers.integers(0, 256, shape, dtype=np.uint8))
    images = levels if dtype == torch.uint8 else (levels / 64 - 2).to(dtype)
    return images, numbers.integers(0, CLASSES, shape[0])


REFUSED = "(sizes|length|tile and ratio) must |fill must be whole numbers|images must have more"
REFUSED += "|images must have sides of more than 2 pixels for CutMix"


def check_batch(transform, batch, options):
    """Pixels, labels and masks of one batch, out of place or in it; what is refused by name has written nothing."""
    images, labels = batch
    layout, in_place, dtype, normalised, loops, impl = options
    images = laid_out(images, layout)
    if layout == "one image for all" and not in_place:
        images = images[:1].expand(images.shape)
    if in_place or not dtype.is_floating_point:
        dtype = images.dtype
    statistics = {"mean": 0.25, "std": 0.5} if normalised and dtype.is_floating_point else {}
    before = images.clone()
    with mock.patch.object(host, "loops", host.loops if loops else lambda: None):
        try:
            plan = transform.make_plan(images)
            made = mix(images, plan, dtype=dtype, out=images if in_place else None, impl=impl, **statistics)
        except ValueError as error:
            assert re.match(REFUSED, str(error)), error
            assert torch.equal(images, before)
            reject()
        plain = before if plan_suits(plan, before) else before.float()
        again, mixed = transform.replay(plain, torch.eye(CLASSES)[labels], plan)
    event(f"{type(transform).__name__}, {1 + (plan.then is not None)} passes")
    assert made is images if in_place else torch.equal(images, before)
    compare(made, oracle(before, plan, dtype, **statistics), plan)
    compare(again, oracle(plain, plan, plain.dtype), plan)
    np.testing.assert_allclose(mixed.numpy(), target_oracle(labels, plan), rtol=0, atol=1e-6)
    check_masks(before, plan)


def plan_suits(plan, images):
    """Whether its fills are levels, if images are."""
    fills = [] if plan.fill is None else [plan.fill]
    suits = images.dtype != torch.uint8 or all(
        (fill == np.round(fill)).all() and fill.min(initial=0) >= 0 for fill in fills
    )
    return suits and (plan.then is None or plan_suits(plan.then, images))


def check_masks(images, plan):
    """Where pixels are only copied, a mask's are copied from the same places: each class is a number of its own."""
    if plan.blends:
        return
    masks = torch.arange(images[:, 0].numel()).view(images[:, 0].shape)
    plan = plan.for_masks()
    wanted = oracle(masks[:, None].double(), plan, torch.float64)[:, 0]
    for dtype in (torch.int64, torch.int32, torch.float64):
        assert torch.equal(mix_masks(masks.to(dtype), plan), wanted.to(dtype))


def compare(made, wanted, plan):
    """Equal bits; noise to what single precision makes of a logarithm."""
    assert made.dtype == wanted.dtype and made.shape == wanted.shape
    exact = ~noisy(made.shape, plan).expand(made.shape)
    assert torch.equal(torch.where(exact, made, 0), torch.where(exact, wanted, 0))
    tolerance = 2 * torch.finfo(made.dtype).eps if made.dtype.is_floating_point else 0
    torch.testing.assert_close(made.double(), wanted.double(), rtol=max(tolerance, 1e-4), atol=max(tolerance, 1e-4))


CASES = given(
    transform=nests(),
    batch=batches(),
    options=st.tuples(
        st.sampled_from(LAYOUTS),
        st.booleans(),  # in place
        st.sampled_from(DTYPES),
        st.booleans(),  # normalised
        st.booleans(),  # compiled loops
        st.sampled_from(["auto", "host", "reference"]),
    ),
)
QUIET = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.generate, Phase.shrink],
    "report_multiple_bugs": False,
    "print_blob": True,
}


@settings(max_examples=300, derandomize=True, **QUIET)
@CASES
def test_pixels_and_labels(transform, batch, options):
    torch.manual_seed(0)
    check_batch(transform, batch, options)


@pytest.mark.deep  # 20,000 examples, other ones each time
@settings(max_examples=20_000, **QUIET)
@CASES
def test_pixels_and_labels_of_many(transform, batch, options):
    torch.manual_seed(0)
    check_batch(transform, batch, options)
