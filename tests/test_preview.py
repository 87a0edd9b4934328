"""preview: the picture shows the plan's pixels and the plan's shares."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from mixcollate import CutMix, Cutout, MixUp, RandomChoice, RandomErasing
from mixcollate.commands.preview import COLOURS, _shares, preview
from mixcollate.schedules import until
from mixcollate.stream import Stream

TWO = torch.tensor([30, 220], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 160, 160)  # drawn as they are


def count(picture: Image.Image, colour: str | tuple[int, int, int], tolerance: int = 0) -> int:
    """How many pixels have a colour."""
    wanted = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return int((np.abs(np.asarray(picture, int) - wanted) <= tolerance).all(2).sum())


def left_half(picture: Image.Image) -> Image.Image:
    return picture.crop((0, 0, picture.width // 2, picture.height))


def test_bars_are_the_plans_shares():
    own_share = float(MixUp().make_plan(TWO, stream=Stream(1)).own_share[0])
    picture = left_half(preview(TWO, MixUp(), names=["cat", "dog"], seed=1))
    own, other = count(picture, COLOURS[0]), count(picture, COLOURS[1])  # below the original, the own bar is full
    assert 0.05 < own_share < 0.95
    assert other / (own + other) == pytest.approx((1 - own_share) / 2, abs=0.01)


def test_pixels_are_the_plans():
    own_share = float(MixUp().make_plan(TWO, stream=Stream(1)).own_share[0])
    picture = left_half(preview(TWO, MixUp(), names=["cat", "dog"], seed=1))
    level = round(own_share * 30 + (1 - own_share) * 220)
    assert count(picture, (level, level, level), tolerance=1) >= 160 * 160
    assert 160 * 160 <= count(picture, (30, 30, 30)) < 161 * 160  # the original, above


def test_erased_pixels_are_grey():
    white = torch.full((1, 3, 160, 160), 255, dtype=torch.uint8)
    picture = preview(white, Cutout(length=80, inside=True), names=["white"], seed=0)
    assert 80 * 80 <= count(picture, (128, 128, 128)) < 80 * 81  # and some of the letters' edges


def test_erasing_leaves_labels():
    picture = preview(TWO, RandomErasing(p=1), names=["cat", "dog"], seed=1)
    assert count(left_half(picture), COLOURS[1]) == 0


def test_labels_may_be_classes_or_rows():
    one = torch.ones(2, dtype=torch.int64)
    by_class = preview(TWO, CutMix(), names=["cat", "dog"], labels=one, seed=1)
    assert count(by_class, COLOURS[0]) == 0
    by_row = preview(TWO, CutMix(), names=["cat", "dog"], labels=torch.eye(2)[one], seed=1)
    assert by_row.tobytes() == by_class.tobytes()


def test_partners_may_depend_on_the_labels():
    seen = []
    pairing = MixUp(pairing=lambda labels, numbers: seen.append(labels.tolist()) or np.array([1, 0]))
    preview(TWO, pairing, names=["cat", "dog"], labels=torch.tensor([1, 0]))
    assert seen == [[1, 0]]


def test_a_seed_repeats_and_inputs_stay():
    images = torch.rand(4, 3, 24, 24)
    before = images.clone()
    first, again, other = (preview(images, CutMix(inplace=True), names=list("abcd"), seed=seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert torch.equal(images, before)


def test_a_transforms_own_stream_goes_on():
    transform = MixUp(seed=1)
    assert preview(TWO, transform, names=["a", "b"]).tobytes() != preview(TWO, transform, names=["a", "b"]).tobytes()
    assert transform.stream.step == 2


def test_uint8_and_float_are_drawn_alike():
    levels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    shares = (levels / 255).requires_grad_()
    whole, fraction = (preview(x, MixUp(), names=list("abcd"), seed=1) for x in (levels, shares))
    assert int(np.abs(np.asarray(whole, int) - np.asarray(fraction, int)).max()) <= 1


def test_grey_images_and_long_names():
    picture = preview(torch.rand(3, 1, 16, 48), MixUp(), names=["a name as long as no class is called", "…", ""])
    assert picture.width == preview(torch.rand(3, 3, 16, 16), MixUp(), names=["a", "b", "c"]).width
    assert count(picture, COLOURS[0]) > 0
    flat, tall = (preview(torch.rand(2, 3, *size), MixUp(), names=["a", "b"]) for size in ((1, 400), (48, 16)))
    assert tall.height - flat.height == 2 * (480 - 1)


def test_small_shares_and_smoothing_leave_room():
    plain, smoothed = (preview(TWO, MixUp(label_smoothing=s), names=list("abcdefgh"), seed=1) for s in (0.0, 0.5))
    assert plain.height < smoothed.height
    assert count(smoothed, COLOURS[7]) == 0  # four bars at most


def test_smoothing_leaves_a_single_class_as_it_is():
    one = {"names": ["a"], "labels": torch.zeros(len(TWO), dtype=torch.int64), "seed": 1}
    plain, smoothed = (preview(TWO, MixUp(label_smoothing=s), **one) for s in (0.0, 0.5))
    assert plain == smoothed


def test_several_transforms_share_the_width_in_twos():
    images = torch.rand(4, 3, 24, 24)
    methods = {"one": RandomErasing(p=1), "two": Cutout(), "three": RandomChoice([Cutout(), RandomErasing()])}
    pair = dict(list(methods.items())[:2])
    single, two, three = (preview(images, given, names=list("abcd"), seed=1) for given in (Cutout(), pair, methods))
    assert single.size == two.size
    assert three.width == two.width
    assert two.height < three.height < 2 * two.height
    mixed = {"one": Cutout(), "two": MixUp()}
    sheets = [
        preview(images, dict(given), names=list("abcd"), seed=1) for given in (mixed.items(), [*mixed.items()][::-1])
    ]
    assert sheets[0].height == sheets[1].height > two.height


def test_the_largest_share_is_above_and_of_equal_ones_the_first_class():
    shares = _shares(torch.tensor([[0.2, 0.8, 0.0], [0.5, 0.0, 0.5]]))
    assert [list(one) for one in shares] == [[1, 0], [0, 2]]


def test_a_single_column_has_a_row_for_each_transform():
    methods = [{str(k): Cutout() for k in range(count)} for count in (2, 3, 4)]
    sheets = [preview(TWO, given, names=["cat", "dog"], columns=1) for given in methods]
    assert sheets[1].height - sheets[0].height == sheets[2].height - sheets[1].height > 160
    assert len({sheet.width for sheet in sheets}) == 1


def test_there_is_room_for_whichever_image_has_the_most_labels():
    rows = torch.tensor([[1, 0], [0.5, 0.5]])
    first, last = (
        preview(TWO, Cutout(), names=["cat", "dog"], labels=labels).height for labels in (rows, rows.flip(0))
    )
    assert first == last


def test_colours_start_again_and_schedules_are_those_of_the_first_epoch():
    picture = preview(torch.zeros(11, 3, 8, 8), MixUp(p=until(1, 0)), names=list("abcdefghijk"), columns=11)
    once = preview(torch.zeros(10, 3, 8, 8), Cutout(), names=list("abcdefghij"), columns=10)
    assert count(picture, COLOURS[0]) == 2 * count(once, COLOURS[0])


def test_many_images_are_wrapped():
    images = torch.zeros(7, 3, 24, 24)  # of random pixels, some have the colour of a bar
    narrow, wide = (preview(images, Cutout(), names=list("abcdefg"), columns=columns) for columns in (3, 7))
    assert narrow.width < wide.width
    assert narrow.height > 2 * wide.height
    assert all(count(narrow, colour) == count(wide, colour) > 0 for colour in COLOURS[:7])  # no bar is covered


def test_errors():
    with pytest.raises(ValueError, match=r"images must be \[B, 3, H, W\].*got \(2, 4, 8, 8\)"):
        preview(torch.rand(2, 4, 8, 8), MixUp(), names=["a", "b"])
    with pytest.raises(ValueError, match=r"with B > 0, got \(0, 3, 8, 8\)"):
        preview(torch.rand(0, 3, 8, 8), MixUp(), names=[])
    with pytest.raises(ValueError, match="names must have one name for each class, got 1 for class 1"):
        preview(TWO, MixUp(), names=["a"])
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        preview(TWO, MixUp(), names=["a", "b"], columns=0)
