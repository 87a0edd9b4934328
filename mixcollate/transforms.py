"""The transforms: configuration, a draw, and a call like that of a ``torchvision.transforms.v2`` transform."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchvision import tv_tensors
from torchvision.transforms import v2
from typing_extensions import Unpack

from mixcollate import methods
from mixcollate.kernels import Impl, Statistic, mix, mix_masks
from mixcollate.methods.fill import Fill
from mixcollate.plan import (
    Draw,
    MixPlan,
    Pairing,
    Per,
    Stream,
    chain,
    draw_from,
    identity,
    select,
)
from mixcollate.schedules import Scheduled, at
from mixcollate.targets import LabelMode, SoftTarget, Targets, mix_targets

LabelsGetter = Callable[[Any], Any] | Literal["default"] | None


class DrawOptions(TypedDict, total=False):
    """What every transform takes; see :class:`MixTransform`."""

    per: Per
    inplace: bool
    seed: int | None


class ErasingOptions(DrawOptions, total=False):
    """What every erasing transform takes; see :class:`ErasingTransform`."""

    p: Scheduled


class LabelOptions(TypedDict, total=False):
    """What every transform that mixes labels takes, too."""

    num_classes: int | None
    labels_getter: LabelsGetter
    targets: Targets
    label_smoothing: float
    label_mode: LabelMode
    ignore_index: int


class MixOptions(DrawOptions, LabelOptions, total=False):
    """What every mixing transform takes; see :class:`MixTransform`."""

    p: Scheduled
    pairing: Pairing


class MixTransform(v2.Transform):
    """A method and its hyper-parameters: draws plans, and runs them on images, labels and masks.

    Called like torchvision's: ``images, targets = transform(images, labels)``, on nested structures too, on CPU or
    CUDA tensors. ``make_plan`` draws without touching a pixel, ``apply`` replays a plan.

    Args:
        num_classes: number of classes; needed when labels are class indices and targets dense.
        labels_getter: ``"default"`` finds labels as torchvision does; a function of the inputs; ``None``: no labels.
        p: probability that a pair (sample, batch: see ``per``) is changed; a number or a function of the epoch.
        per: how far one draw reaches: ``"pair"``, ``"sample"`` or ``"batch"``.
        pairing: ``"matching"`` (random pairs), ``"shuffle"`` (random permutation), ``"roll"`` (torchvision's),
            ``"flip"`` (timm's).
        targets: ``"dense"``: float32 ``[B, num_classes]``; ``"sparse"``: a :class:`~mixcollate.SoftTarget`.
        label_smoothing: in [0, 1).
        label_mode: ``"lerp"``, or ``"union"`` for multi-hot labels of which all count fully.
        ignore_index: the class index of images without a label.
        inplace: mix in the memory of the images that are passed in.
        seed: of a stream of plans that depends on nothing else but the rank (``stream.step`` counts them). Default:
            each plan takes 64 bits from torch's default generator, so that ``torch.manual_seed`` reproduces a run.
    """

    mixes = True

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        labels_getter: LabelsGetter = "default",
        p: Scheduled = 1.0,
        per: Per = "pair",
        pairing: Pairing | None = "matching",
        targets: Targets = "dense",
        label_smoothing: float = 0.0,
        label_mode: LabelMode = "lerp",
        ignore_index: int = -100,
        inplace: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        _check_choice("per", per, get_args(Per))
        _check_choice("targets", targets, get_args(Targets))
        _check_choice("label_mode", label_mode, get_args(LabelMode))
        if pairing is not None:
            _check_choice("pairing", pairing, get_args(Pairing))
        if per == "pair" and pairing in ("shuffle", "roll"):
            raise ValueError(f"per='pair' needs mutual partners, got pairing={pairing!r}; use per='sample' or 'batch'")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        if not (labels_getter is None or labels_getter == "default" or callable(labels_getter)):
            raise ValueError(f"labels_getter must be 'default', a function or None, got {labels_getter!r}")
        if not callable(p):
            _check_probability("p", p)
        self.num_classes, self.labels_getter = num_classes, labels_getter
        self.p, self.per, self.pairing = p, per, pairing
        self.targets, self.label_smoothing, self.label_mode = targets, label_smoothing, label_mode
        self.ignore_index, self.inplace = ignore_index, inplace
        self.stream, self.epoch = Stream(seed), 0

    def draw(self, draw: Draw) -> MixPlan:
        """The method's own part: a plan for every image, as if ``p`` were 1."""
        raise NotImplementedError

    def draw_plan(self, draw: Draw) -> MixPlan:
        """A plan in which only a share ``p`` of the images (pairs, batches) is changed."""
        plan = self.draw(draw)
        p = _check_probability("p", at(self.p, self.epoch))
        if p == 1:
            return plan
        count, unit = draw.units(self.per)
        changed = (draw.numbers.random(count) < p)[unit]
        return select(changed.astype(np.int64), [identity(len(plan), plan.size), plan])

    def make_plan(self, images: Tensor, stream: Stream | None = None) -> MixPlan:
        """Draw a plan for ``images`` ``[B, C, H, W]`` (video ``[B, T, C, H, W]``), of which only the shape counts.

        The numbers are the next of ``stream``; default: the transform's own.
        """
        source = (self.stream if stream is None else stream).next()
        return self.draw_plan(draw_from(source, plan_shape(images), self.pairing))

    def apply(  # type: ignore[override]  # nn.Module.apply visits submodules; a transform has no parameters to visit
        self,
        images: Tensor,
        labels: Tensor | None,
        plan: MixPlan,
        *,
        mean: Statistic | None = None,
        std: Statistic | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
        impl: Impl = "auto",
    ) -> Any:
        """Run ``plan``: ``(images, targets)``, or the images alone where there are no labels.

        The keyword arguments are those of :func:`mixcollate.kernels.mix`.
        """
        if not self.mixes or labels is None:
            targets: Tensor | SoftTarget | None = labels
        else:
            targets = self.mix_labels(labels, plan)
        out = images if self.inplace else None
        mixed = mix(images, plan, mean=mean, std=std, dtype=dtype, memory_format=memory_format, out=out, impl=impl)
        return mixed if labels is None else (mixed, targets)

    def mix_labels(self, labels: Tensor, plan: MixPlan) -> Tensor | SoftTarget:
        """Soft targets for ``labels`` as this transform is told to make them."""
        return mix_targets(
            labels,
            plan,
            num_classes=self.num_classes,
            targets=self.targets,
            label_smoothing=self.label_smoothing,
            label_mode=self.label_mode,
            ignore_index=self.ignore_index,
        )

    def set_epoch(self, epoch: int) -> None:
        """Tell the schedules which epoch it is."""
        self.epoch = epoch

    def extra_repr(self) -> str:
        """The hyper-parameters that differ from the common defaults."""
        defaults = inspect.signature(MixTransform).parameters
        told = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        for name in ("training", "stream", "epoch"):
            told.pop(name, None)
        changed = (k for k in told if k not in defaults or told[k] != defaults[k].default)
        return ", ".join(f"{name}={told[name]!r}" for name in changed if told[name] is not None)

    def forward(self, *inputs: Any) -> Any:
        """Mix the images (and masks) among ``inputs`` and turn their labels into soft targets."""
        structure = inputs if len(inputs) > 1 else inputs[0]
        flat, spec = tree_flatten(structure)
        labels = self._find_labels(structure) if self.mixes else None
        slots = _image_slots(flat, labels)
        plan = self.make_plan(flat[slots[0]])
        outputs = list(flat)
        targets = None if labels is None else self.mix_labels(labels, plan)
        for slot, value in enumerate(flat):
            if isinstance(value, tv_tensors.Mask):
                outputs[slot] = tv_tensors.wrap(mix_masks(value.as_subclass(Tensor), plan), like=value)
        for slot in slots:
            value = flat[slot]
            mixed = self.apply(value.as_subclass(Tensor), None, plan)
            outputs[slot] = tv_tensors.wrap(mixed, like=value) if isinstance(value, tv_tensors.TVTensor) else mixed
        if targets is not None:
            where = next(slot for slot, value in enumerate(flat) if value is labels)
            outputs[where] = targets
        return tree_unflatten(outputs, spec)

    def _find_labels(self, structure: Any) -> Tensor | None:
        if self.labels_getter is None:
            return None
        labels = _default_labels(structure) if self.labels_getter == "default" else self.labels_getter(structure)
        if not isinstance(labels, Tensor):
            raise ValueError(f"labels must be a tensor, got {type(labels).__name__}; tell labels_getter where they are")
        return labels


class MixUp(MixTransform):
    """Blend every image with a partner (https://arxiv.org/abs/1710.09412).

    Args:
        alpha: own shares come from Beta(alpha, alpha); a number or a function of the epoch.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, alpha: Scheduled = 1.0, **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        self.alpha = _check_alpha(alpha)

    def draw(self, draw: Draw) -> MixPlan:
        return methods.mixup(draw, alpha=_positive("alpha", at(self.alpha, self.epoch)), per=self.per)


class CutMix(MixTransform):
    """Paste a box of the partner into every image (https://arxiv.org/abs/1905.04899).

    At ``alpha=1`` the clipped boxes cover on average 0.32 of a 224-pixel image, not one half.

    Args:
        alpha: the box has a share 1 - Beta(alpha, alpha) of the area before clipping; a number or a function of the
            epoch.
        minmax: draw the box's sides uniformly between these shares of the image's instead, fully inside.
        placement: ``"clipped"``: centre anywhere, even sides, clipped (the paper's code, torchvision);
            ``"timm"``: the same with odd sides, too; ``"inside"``: the whole box inside the image.
        correct_lam: count the label's share from the pixels; ``False``: use the drawn one.
        options: see :class:`MixTransform`.
    """

    def __init__(
        self,
        *,
        alpha: Scheduled = 1.0,
        minmax: tuple[float, float] | None = None,
        placement: methods.Placement = "clipped",
        correct_lam: bool = True,
        **options: Unpack[MixOptions],
    ) -> None:
        super().__init__(**options)
        _check_choice("placement", placement, get_args(methods.Placement))
        if minmax is not None:
            _check_range("minmax", minmax, 0, 1)
        self.alpha, self.minmax, self.placement, self.correct_lam = _check_alpha(alpha), minmax, placement, correct_lam

    def draw(self, draw: Draw) -> MixPlan:
        return methods.cutmix(
            draw,
            alpha=_positive("alpha", at(self.alpha, self.epoch)),
            per=self.per,
            minmax=self.minmax,
            placement=self.placement,
            correct_lam=self.correct_lam,
        )


class RICAP(MixTransform):
    """Put four images' crops together around a random point (https://arxiv.org/abs/1811.09030).

    The image's own crop is top left; in a shuffled batch this is the paper's method with the images renamed.

    Args:
        beta: the point's coordinates come from Beta(beta, beta); a number or a function of the epoch.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, beta: Scheduled = 0.3, **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        self.beta = beta if callable(beta) else _positive("beta", beta)

    def draw(self, draw: Draw) -> MixPlan:
        return methods.ricap(draw, beta=_positive("beta", at(self.beta, self.epoch)), per=self.per)


class ResizeMix(MixTransform):
    """Paste the whole partner, shrunk, into every image (https://arxiv.org/abs/2012.11101).

    Args:
        scale: the partner's sides shrink to a share drawn uniformly from this range.
        interpolation: ``"bilinear"`` (pixel centres aligned, no antialiasing) or ``"nearest"``.
        clipped: centre anywhere and squeeze the partner into the clipped box (openmixup), instead of fully inside.
        options: see :class:`MixTransform`.
    """

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0.1, 0.8),
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        clipped: bool = False,
        **options: Unpack[MixOptions],
    ) -> None:
        super().__init__(**options)
        _check_range("scale", scale, 0, 1)
        _check_choice("interpolation", interpolation, ("bilinear", "nearest"))
        self.scale, self.interpolation, self.clipped = scale, interpolation, clipped

    def draw(self, draw: Draw) -> MixPlan:
        return methods.resizemix(
            draw, scale=self.scale, interpolation=self.interpolation, clipped=self.clipped, per=self.per
        )


class FMix(MixTransform):
    """Mix along the contours of low-frequency noise (https://arxiv.org/abs/2002.12047).

    Drawing the masks takes a Fourier transform each, on the host; ``per="batch"`` draws one.

    Args:
        alpha: own shares come from Beta(alpha, alpha); a number or a function of the epoch.
        decay: how fast the noise's spectrum falls with frequency.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, alpha: Scheduled = 1.0, decay: float = 3.0, **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        self.alpha, self.decay = _check_alpha(alpha), decay

    def draw(self, draw: Draw) -> MixPlan:
        alpha = _positive("alpha", at(self.alpha, self.epoch))
        return methods.fmix(draw, alpha=alpha, decay=self.decay, per=self.per)


class Mosaic(MixTransform):
    """Show a quadrant of each of four images, in place (YOLOv4, https://arxiv.org/abs/2004.10934; darknet).

    Args:
        centre: where the quadrants meet, drawn uniformly from this share of each side.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, centre: tuple[float, float] = (0.2, 0.8), **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        _check_range("centre", centre, 0, 1)
        self.centre = centre

    def draw(self, draw: Draw) -> MixPlan:
        return methods.mosaic(draw, centre=self.centre, per=self.per)


class ErasingTransform(MixTransform):
    """A method that overwrites pixels with a fill and leaves labels and masks as they are.

    Args:
        p: probability that an image is changed; a number or a function of the epoch.
        per: ``"sample"`` or ``"batch"``: how far one draw reaches.
        inplace: erase in the memory of the images that are passed in.
        seed: see :class:`MixTransform`.
    """

    mixes = False

    def __init__(
        self, *, p: Scheduled = 1.0, per: Per = "sample", inplace: bool = False, seed: int | None = None
    ) -> None:
        _check_choice("per", per, ("sample", "batch"))
        super().__init__(p=p, per=per, pairing=None, inplace=inplace, seed=seed)


class Cutout(ErasingTransform):
    """Erase a square of every image (https://arxiv.org/abs/1708.04552).

    Args:
        length: the square's side in pixels, or as a share of the shorter side of the image. The paper's 16 on
            CIFAR-10 is the default of one half; it takes 8 on CIFAR-100.
        holes: how many squares.
        inside: keep squares fully inside the image, instead of clipping those whose centre is near the border.
        fill: a number or one a channel, in the units of the result (0 is the mean after normalising); ``"mean"``;
            ``"noise"`` for each pixel or ``"channel_noise"`` for each box, normal (uint8: uniform).
        options: see :class:`ErasingTransform`.
    """

    def __init__(
        self,
        *,
        length: float = 0.5,
        holes: int = 1,
        inside: bool = False,
        fill: Fill = 0.0,
        **options: Unpack[ErasingOptions],
    ) -> None:
        super().__init__(**options)
        self.length, self.holes, self.inside = _positive("length", length), holes, inside
        self.fill = _check_fill(fill)

    def draw(self, draw: Draw) -> MixPlan:
        shorter = min(draw.size)
        length = self.length if isinstance(self.length, int) else round(self.length * shorter)
        if length > 2 * shorter:
            raise ValueError(f"length must be at most twice the shorter side ({shorter} pixels), got {length}")
        return methods.cutout(draw, length=length, holes=self.holes, inside=self.inside, per=self.per, fill=self.fill)


class RandomErasing(ErasingTransform):
    """Erase a random rectangle of some images (https://arxiv.org/abs/1708.04896).

    ``p``, ``scale``, ``ratio``, ``value`` and ``inplace`` are torchvision's, but every image has a draw of its own
    (``per="batch"``: torchvision's one). The authors' code is ``scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3),
    log_ratio=False, attempts=100``; the paper's Algorithm 1 draws smaller boxes.

    Args:
        p: probability that an image is changed; a number or a function of the epoch.
        scale: range of the erased share of the area.
        ratio: range of the aspect ratio, height over width.
        value: a number, one a channel, or ``"random"``: noise for each pixel.
        fill: the same as ``value`` in this library's words; see :class:`Cutout`. Give one of them.
        log_ratio: draw the ratio's logarithm uniformly (torchvision, timm), instead of the ratio (the paper).
        count: least and most boxes an image, which share its area.
        attempts: how many boxes are drawn before one that does not fit is given up.
        options: see :class:`ErasingTransform`.
    """

    def __init__(
        self,
        p: Scheduled = 0.5,
        *,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: Fill | Literal["random"] = 0.0,
        fill: Fill | None = None,
        log_ratio: bool = True,
        count: tuple[int, int] = (1, 1),
        attempts: int = 10,
        **options: Unpack[DrawOptions],
    ) -> None:
        super().__init__(p=p, **options)
        _check_range("scale", scale, 0, 1)
        _check_range("ratio", ratio, 0, float("inf"))
        _check_range("count", count, 1, float("inf"))
        if ratio[0] <= 0:
            raise ValueError(f"ratio must be positive, got {ratio}")
        if fill is not None and value != 0.0:
            raise ValueError(f"give value or fill, not both; got value={value!r}, fill={fill!r}")
        if attempts < 1:
            raise ValueError(f"attempts must be positive, got {attempts}")
        self.scale, self.ratio, self.log_ratio, self.count, self.attempts = scale, ratio, log_ratio, count, attempts
        self.fill = _check_fill("noise" if value == "random" else value if fill is None else fill)

    def draw(self, draw: Draw) -> MixPlan:
        return methods.random_erasing(
            draw,
            scale=self.scale,
            ratio=self.ratio,
            log_ratio=self.log_ratio,
            count=self.count,
            attempts=self.attempts,
            per=self.per,
            fill=self.fill,
        )


class GridMask(ErasingTransform):
    """Erase a regular grid of squares (https://arxiv.org/abs/2001.04086).

    Args:
        tile: range of the grid's period in pixels, the upper end excluded. Default: the authors' (96, 224) at 224
            pixels, scaled to the shorter side.
        ratio: share of the period that is kept on each axis, so that (1 - ratio)² of the pixels go.
        rotate: the grid is turned by a whole number of degrees below this.
        invert: erase the bands between the squares instead (the code's ``mode=0``).
        p: the authors' 0.8; they reach it slowly: ``p=ramp(0.8, 240)``.
        fill: see :class:`Cutout`.
        options: see :class:`ErasingTransform`.
    """

    def __init__(
        self,
        *,
        tile: tuple[int, int] | None = None,
        ratio: float = 0.6,
        rotate: int = 360,
        invert: bool = False,
        p: Scheduled = 0.8,
        fill: Fill = 0.0,
        **options: Unpack[DrawOptions],
    ) -> None:
        super().__init__(p=p, **options)
        if tile is not None and not 1 <= tile[0] < tile[1]:
            raise ValueError(f"tile must be (low, high) pixels with 1 <= low < high, got {tile}")
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must be in (0, 1), got {ratio}")
        self.tile, self.ratio, self.rotate, self.invert = tile, ratio, rotate, invert
        self.fill = _check_fill(fill)

    def draw(self, draw: Draw) -> MixPlan:
        shorter = min(draw.size)
        low = max(round(shorter * 96 / 224), 1)
        tile = self.tile or (low, max(shorter, low + 1))
        return methods.gridmask(
            draw, tile=tile, ratio=self.ratio, rotate=self.rotate, invert=self.invert, per=self.per, fill=self.fill
        )


class HideAndSeek(ErasingTransform):
    """Hide random cells of a grid (https://arxiv.org/abs/1704.04232, https://arxiv.org/abs/1811.02545).

    Args:
        sizes: the cells' sides in pixels, one of which is drawn for each image; 0 leaves it whole. Default: the
            authors' (0, 16, 32, 44, 56) at 224 pixels, scaled to the shorter side. A size over half of that is
            refused: at 32 pixels the authors' list would hide 31.5 % of all images entirely.
        hide: probability that a cell is hidden.
        fill: see :class:`Cutout`.
        options: see :class:`ErasingTransform`.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int] | None = None,
        hide: float = 0.5,
        fill: Fill = 0.0,
        **options: Unpack[ErasingOptions],
    ) -> None:
        super().__init__(**options)
        if sizes is not None and (len(sizes) == 0 or min(sizes) < 0):
            raise ValueError(f"sizes must be whole numbers of pixels, 0 or more, got {sizes}")
        self.sizes, self.hide = sizes, _check_probability("hide", hide)
        self.fill = _check_fill(fill)

    def draw(self, draw: Draw) -> MixPlan:
        shorter = min(draw.size)
        sizes = self.sizes
        if sizes is None:
            sizes = [round(size * shorter / 224) for size in (0, 16, 32, 44, 56)]
        elif max(sizes) > shorter / 2:
            raise ValueError(
                f"sizes must be at most half the shorter side ({shorter} pixels), got {max(sizes)}, which can hide a "
                "whole image; leave sizes out to scale the paper's"
            )
        return methods.hide_and_seek(draw, sizes=tuple(sizes), hide=self.hide, per=self.per, fill=self.fill)


class RandomChoice(MixTransform):
    """Choose one of several transforms for each pair (sample, batch).

    What happens to labels is told here or by the transforms, which must agree.

    Args:
        transforms: the transforms to choose from; those that mix must share one ``pairing``.
        p: their probabilities; default: all the same.
        per: how far one choice reaches; default: ``"pair"`` if any of them mixes, else ``"sample"``.
        options: ``inplace``, ``seed`` and what :class:`MixTransform` takes for labels.
    """

    def __init__(
        self,
        transforms: Sequence[MixTransform],
        *,
        p: Sequence[float] | None = None,
        per: Per | None = None,
        inplace: bool = False,
        seed: int | None = None,
        **options: Unpack[LabelOptions],
    ) -> None:
        transforms = _check_transforms("RandomChoice", transforms)
        pairings = {t.pairing for t in transforms if t.mixes}
        if len(pairings) > 1:
            raise ValueError(f"the transforms of RandomChoice must share one pairing, got {sorted(map(str, pairings))}")
        mixes = bool(pairings)
        super().__init__(
            per=per or ("pair" if mixes and pairings <= {"matching", "flip"} else "sample"),
            pairing=pairings.pop() if mixes else None,
            inplace=inplace,
            seed=seed,
            **_shared_options(transforms, options),
        )
        weights = [1.0] * len(transforms) if p is None else [float(value) for value in p]
        if len(weights) != len(transforms) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"p must be one probability for each of {len(transforms)} transforms, got {p}")
        self.mixes = mixes
        self.transforms = torch.nn.ModuleList(transforms)
        self._upper = np.cumsum(weights[:-1]) / sum(weights)  # transform k is chosen by numbers from upper[k - 1] on

    def draw(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        choice = np.searchsorted(self._upper, draw.numbers.random(count), side="right")[unit]
        return select(choice, [transform.draw_plan(draw) for transform in _members(self)])

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        for transform in _members(self):
            transform.set_epoch(epoch)


class Compose(MixTransform):
    """Do several transforms one after the other, in one pass where it can hold them all (mix, then erase).

    Args:
        transforms: in order.
        options: ``inplace``, ``seed`` and what :class:`MixTransform` takes for labels.
    """

    def __init__(
        self,
        transforms: Sequence[MixTransform],
        *,
        inplace: bool = False,
        seed: int | None = None,
        **options: Unpack[LabelOptions],
    ) -> None:
        transforms = _check_transforms("Compose", transforms)
        first = next((t for t in transforms if t.mixes), None)
        super().__init__(
            per="sample",
            pairing=None if first is None else first.pairing,
            inplace=inplace,
            seed=seed,
            **_shared_options(transforms, options),
        )
        self.mixes = first is not None
        self.transforms = torch.nn.ModuleList(transforms)

    def draw(self, draw: Draw) -> MixPlan:
        plan = None
        for transform in _members(self):
            further = transform.draw_plan(draw)
            plan = further if plan is None else chain(plan, further)
            if transform.mixes:  # whoever mixes next has partners of its own
                draw = draw_from(draw.numbers, draw.shape, transform.pairing)
        if plan is None:
            raise ValueError("Compose needs at least one transform")
        return plan

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        for transform in _members(self):
            transform.set_epoch(epoch)


def plan_shape(images: Tensor) -> tuple[int, int, int, int]:
    """``(batch, channels, height, width)`` for a plan; anything that is no image or video is one row of pixels."""
    if images.ndim == 0:
        raise ValueError("images must be a batch [B, ...], got a tensor without dimensions")
    if images.ndim in (4, 5):
        batch, (channels, height, width) = images.shape[0], images.shape[-3:]
        return batch, channels, height, width
    return images.shape[0], 1, 1, images[:1].numel()


def _image_slots(flat: Sequence[Any], labels: Tensor | None) -> list[int]:
    """Where the images are: every tv_tensors.Image and Video, or else the first plain tensor that is no label."""
    for value in flat:
        if isinstance(value, (PIL.Image.Image, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)):
            raise ValueError(f"a batch with {type(value).__name__} cannot be mixed: there is no rule for it")
    explicit = [slot for slot, value in enumerate(flat) if isinstance(value, (tv_tensors.Image, tv_tensors.Video))]
    plain = [slot for slot, value in enumerate(flat) if type(value) is Tensor and value is not labels]
    slots = explicit or plain[:1]
    if not slots:
        raise ValueError("images must be a tensor [B, C, H, W], found none; stack the samples first")
    if not explicit and any(flat[slot].ndim >= 4 for slot in plain[1:]):
        raise ValueError("more than one tensor looks like images; wrap those to be mixed in tv_tensors.Image or Video")
    return slots


def _default_labels(structure: Any) -> Any:
    """Labels where torchvision looks for them: the second input, or under a key with 'label' in its name."""
    if isinstance(structure, (tuple, list)) and len(structure) > 1:
        structure = structure[1]
        if isinstance(structure, Tensor):
            return structure
    if isinstance(structure, dict):
        for key, value in sorted(structure.items(), key=lambda item: str(item[0]).lower() != "labels"):
            if "label" in str(key).lower():
                return value
    raise ValueError("no labels found: pass (images, labels), or a labels_getter, or labels_getter=None for no labels")


def _members(container: RandomChoice | Compose) -> list[MixTransform]:
    return [member for member in container.transforms if isinstance(member, MixTransform)]


def _check_transforms(name: str, transforms: Sequence[MixTransform]) -> list[MixTransform]:
    transforms = list(transforms)
    if not transforms:
        raise ValueError(f"{name} needs at least one transform")
    for transform in transforms:
        if not isinstance(transform, MixTransform):
            found = type(transform).__name__
            raise TypeError(f"{name} takes mixcollate's transforms, got {found}; put others around it in v2.Compose")
        if transform.stream.seed is not None:
            raise ValueError(f"seed must be given to {name}, not to the {type(transform).__name__} in it")
    return transforms


def _shared_options(transforms: Sequence[MixTransform], options: LabelOptions) -> dict[str, Any]:
    """What the container is told about labels, else what its members agree on."""
    shared: dict[str, Any] = {}
    for name in LabelOptions.__annotations__:
        default = inspect.signature(MixTransform).parameters[name].default
        told = [getattr(t, name) for t in transforms if t.mixes and getattr(t, name) != default]
        if name in options:
            shared[name] = options[name]  # type: ignore[literal-required]
        elif told:
            if any(value != told[0] for value in told):
                raise ValueError(f"{name} must be the same for all transforms in a container, got {told}; give it once")
            shared[name] = told[0]
    return shared


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _check_probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a probability in [0, 1], got {value}")
    return value


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}; drop the transform or use p=0 to turn mixing off")
    return value


def _check_fill(fill: Fill) -> Fill:
    if isinstance(fill, str):
        _check_choice("fill", fill, ("mean", "noise", "channel_noise"))
    return fill


def _check_alpha(alpha: Scheduled) -> Scheduled:
    return alpha if callable(alpha) else _positive("alpha", alpha)


def _check_range(name: str, value: Sequence[float], low: float, high: float) -> None:
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be (low, high) with {low} <= low <= high <= {high}, got {tuple(value)}")
