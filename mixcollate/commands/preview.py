"""Draw what a transform does to images: originals on top, mixed images below, soft labels as bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mixcollate.kernels import mix
from mixcollate.stream import Stream
from mixcollate.targets import mix_targets
from mixcollate.transforms import MixTransform

COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#b07aa1", "#edc948", "#b5835a", "#ff9da7", "#a7a9b8")
"""Colours of the classes, in order; further classes start again from the first."""

_GREY, _SPREAD = 0.5, 0.25  # mean and std for normalising images and back
_SIDE = 160  # pixels: the width of an image
_MARGIN, _GAP, _TITLE, _LINE = 20, 14, 34, 18  # pixels
_BARS = 4  # at most, under each image
_INK = "#222222"


def preview(
    images: Tensor,
    transform: MixTransform | Mapping[str, MixTransform],
    *,
    names: Sequence[str],
    labels: Tensor | None = None,
    seed: int | None = None,
    columns: int = 6,
) -> Image.Image:
    """Draw what a transform makes of ``images``; nothing is written to disk.

    Images are normalised, mixed and converted back, so that pixels erased with the default fill are grey.

    Args:
        images: ``[B, 3, H, W]`` (or ``[B, 1, H, W]``), uint8 or floating point in [0, 1]; left unchanged.
        transform: a transform, or several by title; these are drawn two abreast and show only the first images.
        names: names of the classes.
        labels: ``[B]`` class indices, or rows ``[B, len(names)]``; default: every image has its own class.
        seed: seed of the plans; default: the transform's own stream.
        columns: number of images in a row, at most.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must be [B, 3, H, W] or [B, 1, H, W] with B > 0, got {tuple(images.shape)}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    labels = torch.arange(len(images)) if labels is None else labels.cpu()
    if labels.ndim == 1 and int(labels.max()) >= len(names):
        raise ValueError(f"names must have one name for each class, got {len(names)} for class {int(labels.max())}")
    images, columns = images.detach().cpu(), min(columns, len(images))
    given = dict(transform) if isinstance(transform, Mapping) else {type(transform).__name__: transform}
    shown = len(images) if len(given) == 1 else max(columns // 2, 1)
    rows = labels if labels.ndim == 2 else torch.nn.functional.one_hot(labels, len(names))
    bands = [[Block("Originals", _pictures(images), _shares(rows), columns)]]
    for position, (title, method) in enumerate(given.items()):
        pixels, target = _mixed(images, labels, method, len(names), None if seed is None else Stream(seed))
        block = Block(title, _pictures(pixels[:shown]), _shares(target[:shown]), columns)
        if position % 2 == 0 or columns == 1:
            bands.append([])
        bands[-1].append(block)
    return _draw(bands, names, columns)


@dataclass(frozen=True)
class Block:
    """Images with their labels below a title, ``columns`` in a row."""

    title: str
    pictures: list[Image.Image]
    labels: list[dict[int, float]]
    columns: int

    @property
    def tile_height(self) -> int:
        return self.pictures[0].height + 6 + _LINE * max(len(label) for label in self.labels) + _GAP

    @property
    def height(self) -> int:
        return _TITLE + -(-len(self.pictures) // self.columns) * self.tile_height


class Pen:
    """Draws labels as lines: the name of a class, a bar as long as its share, and the share in per cent."""

    def __init__(self, draw: ImageDraw.ImageDraw, names: Sequence[str]) -> None:
        self.draw, self.font = draw, ImageFont.load_default(13)
        self.names = [self._fitting(name, round(0.42 * _SIDE)) for name in names]
        self.start = round(max(draw.textlength(name, font=self.font) for name in self.names)) + 8
        self.end = _SIDE - 42

    def share(self, place: tuple[int, int], class_index: int, share: float) -> None:
        left, middle = place
        start, end, colour = left + self.start, left + self.end, COLOURS[class_index % len(COLOURS)]
        self.draw.text(place, self.names[class_index], font=self.font, fill=_INK, anchor="lm")
        self.draw.rectangle((start, middle - 4, end, middle + 4), fill="#ececec")
        self.draw.rectangle((start, middle - 4, start + round(share * (end - start)), middle + 4), fill=colour)
        self.draw.text((left + _SIDE, middle), f"{share:.0%}", font=self.font, fill="#555555", anchor="rm")

    def _fitting(self, text: str, width: int) -> str:
        """``text``, shortened if it is wider than ``width``."""
        short = text
        while short and self.draw.textlength(short if short == text else short + "…", font=self.font) > width:
            short = short[:-1]
        return short if short == text else short + "…"


def _mixed(
    images: Tensor, labels: Tensor, transform: MixTransform, classes: int, stream: Stream | None
) -> tuple[Tensor, Tensor]:
    """Mixed images in [0, 1] and their targets ``[B, classes]``."""
    plan = transform.make_plan(images, labels=labels, stream=stream, epoch=0)
    pixels = mix(images, plan, mean=_GREY, std=_SPREAD, dtype=torch.float32)
    target = mix_targets(
        labels,
        plan,
        num_classes=classes,
        label_smoothing=transform.label_smoothing if classes > 1 else 0.0,  # which is refused for one
        label_mode=transform.label_mode,
        ignore_index=transform.ignore_index,
    )
    return (pixels * _SPREAD + _GREY).clamp(0, 1), cast(Tensor, target)  # dense by default


def _pictures(images: Tensor) -> list[Image.Image]:
    """The images as pictures, all of the same width."""
    if images.dtype != torch.uint8:
        images = (images.float() * 255).round().to(torch.uint8)
    pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    size = _SIDE, max(round(_SIDE * images.shape[2] / images.shape[3]), 1)
    return [Image.fromarray(image).resize(size, Image.Resampling.BICUBIC) for image in pixels]


def _shares(target: Tensor) -> list[dict[int, float]]:
    """For each image its classes and their shares, the largest first, except those that round to 0 %."""
    shares, classes = target.double().sort(dim=1, descending=True, stable=True)
    rows = zip(classes[:, :_BARS].tolist(), shares[:, :_BARS].tolist(), strict=True)
    return [{c: share for c, share in zip(*row, strict=True) if share >= 0.005} for row in rows]


def _draw(bands: list[list[Block]], names: Sequence[str], columns: int) -> Image.Image:
    width = 2 * _MARGIN + columns * (_SIDE + _GAP) - _GAP
    height = 2 * _MARGIN - _GAP // 2 + sum(max(block.height for block in band) for band in bands)
    canvas = Image.new("RGB", (width, height), "white")
    pen = Pen(ImageDraw.Draw(canvas), names)
    top = _MARGIN
    for band in bands:
        left = _MARGIN
        for block in band:
            _draw_block(canvas, pen, (left, top), block)
            left += (columns - columns // 2) * (_SIDE + _GAP)  # an odd column out stays free between the halves
        top += max(block.height for block in band)
    return canvas


def _draw_block(canvas: Image.Image, pen: Pen, corner: tuple[int, int], block: Block) -> None:
    pen.draw.text(corner, block.title, font=ImageFont.load_default(19), fill=_INK)
    for number, (picture, label) in enumerate(zip(block.pictures, block.labels, strict=True)):
        row, column = divmod(number, block.columns)
        left, top = corner[0] + column * (picture.width + _GAP), corner[1] + _TITLE + row * block.tile_height
        canvas.paste(picture, (left, top))
        for line, (class_index, share) in enumerate(label.items()):
            pen.share((left, top + picture.height + 6 + line * _LINE + _LINE // 2), class_index, share)
