"""Run a plan on a batch whose roles are known. All errors are raised before anything is written."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import Parameter
from torchvision import tv_tensors

from mixcollate.checks import check_tensor, is_readable, is_transformed
from mixcollate.kernels import Axes, Impl, PackedPlan, Statistic, pack
from mixcollate.kernels.overlap import has_address, reach_into_each_other
from mixcollate.kernels.pixels import result_dtype
from mixcollate.kernels.prepare import (
    Decision,
    check_masks,
    check_plan,
    decide,
    place,
    prepare,
    prepare_masks,
    prepare_samples,
)
from mixcollate.kernels.support import is_forward_mode
from mixcollate.plan import MixPlan, identity, takes_partners
from mixcollate.roles import Path, Roles, dotted, is_one_sample, leaf_at, replace_at
from mixcollate.stacking import Stacking, Unstacked
from mixcollate.targets import TargetRule

if TYPE_CHECKING:
    from mixcollate.kernels.fused_targets import UnwrittenTargets

MOST_KINDS = 16  # of batches, such as the last one of an epoch, or the sizes of multi-scale training

_VALUES = TargetRule(targets="values")


def execute(
    batch: Any,
    roles: Roles,
    plan: MixPlan | PackedPlan,
    rules: Sequence[TargetRule],
    *,
    inplace: bool = False,
    memory: Stacking | None = None,
    mask_classes: int | None = None,
    mask_ignore_index: int = 255,
    mean: Statistic | None = None,
    std: Statistic | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    impl: Impl = "auto",
    layout: Axes | None = None,
) -> Any:
    """A batch of the same structure with images and masks mixed, labels as soft targets, and the rest unchanged.

    Args:
        batch: not modified, unless ``inplace``.
        roles: where its images, labels and masks are.
        plan: drawn for its images.
        rules: how each of its labels becomes a target; without rules labels are unchanged.
        inplace: whether the result may be written into the memory of the images.
        memory: where the result is written on the CPU otherwise; default: new memory.
        mask_classes: if given, masks are class indices, and become one-hot (soft) masks of this many classes.
        mask_ignore_index: the number of pixels that belong to none of these classes.
        mean, std, dtype, memory_format, impl, layout: see :func:`mixcollate.kernels.mix`.
    """
    options: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype}
    options |= {"memory_format": memory_format, "impl": impl, "layout": layout}
    placed = place(plan, first_images(batch, roles), impl)
    changed: dict[Path, Any] = {}
    unwritten: UnwrittenTargets | None = None  # targets that the launch that mixes the (first) images will write
    for path, rule in zip(roles.labels, _one_each(rules, roles.labels), strict=False):  # without rules, or labels, none
        with _naming(path, roles.labels):
            labels = plain(leaf_at(batch, path))
            here = _plan_for(labels, placed, plan)
            # the launch for the images reads no labels of another device, nor a plan that was packed for them there
            if unwritten is None and isinstance(here, PackedPlan) and here.words.device == labels.device:
                changed[path], unwritten = rule.prepare(labels, here)
            else:
                changed[path] = rule.mix(labels, here)
    mixes = takes_partners(plan)  # erasing alone changes nothing but images
    for path in roles.blended if mixes else ():
        value = leaf_at(batch, path)
        changed[path] = _blended(value, path, _plan_for(value, placed, plan))
    runs: list[tuple[Path, Callable[[], Tensor]]] = []  # these have passed all checks
    for path in roles.masks if mixes or mask_classes is not None else ():
        with _naming(path, roles.masks):
            whole = plain(leaf_at(batch, path))
            if mask_classes is not None:
                whole = one_hot_masks(whole, mask_classes, mask_ignore_index, volumes=layout == "BCDHW")
            runs.append((path, prepare_masks(whole, plan, inplace=mask_classes is not None).run))
    if inplace and len(roles.images) > 1:  # writing one must not change another that is still to be read
        stacked = [plain(one) for path in roles.images if not isinstance(one := leaf_at(batch, path), Unstacked)]
        inplace = all(map(has_address, stacked)) and not reach_into_each_other(stacked)
    for path in roles.images:
        with _naming(path, roles.images):
            runs.append((path, _run_images(leaf_at(batch, path), placed, inplace, memory, options, unwritten)))
        unwritten = None
    for path, run in runs:
        changed[path] = _alike(run(), leaf_at(batch, path))
    return replace_at(batch, changed)


@contextlib.contextmanager
def _naming(path: Path, several: Sequence[Path]) -> Iterator[None]:
    """Say which of several entries an error is about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if len(several) == 1:
            raise
        raise type(error)(f"at {dotted(path)}: {error}") from error


class Decided(NamedTuple):
    """What was decided about batches of one kind.

    Attributes:
        images: how their images are mixed.
        rule: how their labels become targets; ``None`` if they stay as they are.
        target_implementation: the implementation that makes the targets.
    """

    images: Decision
    rule: TargetRule | None
    target_implementation: Impl


class Executor:
    """:func:`execute`, always with the same rules and options.

    In training, most calls differ from earlier ones in nothing but numbers and pixels. What was decided then still
    holds, and is not decided again: for small batches that takes longer than all the rest.

    Args:
        rules, memory, mask_classes, mask_ignore_index: see :func:`execute`.
        mean, std, dtype, memory_format, layout: see :func:`mixcollate.kernels.mix`.
    """

    def __init__(
        self,
        rules: Sequence[TargetRule],
        *,
        memory: Stacking | None = None,
        mask_classes: int | None = None,
        mask_ignore_index: int = 255,
        mean: Statistic | None = None,
        std: Statistic | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
        layout: Axes | None = None,
    ) -> None:
        self.rules, self.memory = rules, memory
        self.masks: dict[str, Any] = {"mask_classes": mask_classes, "mask_ignore_index": mask_ignore_index}
        self.output: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype}
        self.output |= {"memory_format": memory_format, "layout": layout}
        self._decided: dict[Any, Decided] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_decided": {}}  # a copy decides for itself

    def run(
        self, batch: Any, roles: Roles, plan: MixPlan, *, inplace: bool = False, dtype: torch.dtype | None = None
    ) -> Any:
        """Run a plan on a batch; ``dtype``, if given, takes the place of the one in ``output``."""
        output = self.output if dtype is None else {**self.output, "dtype": dtype}
        kind = None
        # how the axes of volumes are arranged depends on the plan's fill, which is no part of a kind
        if output["layout"] != "BCDHW":
            kind = _kind(batch, roles, plan, inplace, dtype)
        decided = self._decided.get(kind)
        if decided is not None:
            return self._run_alike(decided, batch, roles, plan, inplace, output)
        mixed = execute(batch, roles, plan, self.rules, inplace=inplace, memory=self.memory, **self.masks, **output)
        if kind is not None:
            if len(self._decided) >= MOST_KINDS:
                self._decided.clear()
            self._decided[kind] = self._decide(batch, roles, plan, output)
        return mixed

    def _decide(self, batch: Any, roles: Roles, plan: MixPlan, output: dict[str, Any]) -> Decided:
        """What :func:`execute` decided about this batch, of which only the kind matters."""
        images = decide(leaf_at(batch, roles.images[0]), plan, **output)
        if not (roles.labels and self.rules):
            return Decided(images, None, "auto")
        (rule,) = _one_each(self.rules, roles.labels)
        return Decided(images, rule, rule.choose(leaf_at(batch, roles.labels[0]), plan))

    def _run_alike(
        self, decided: Decided, batch: Any, roles: Roles, plan: MixPlan, inplace: bool, output: dict[str, Any]
    ) -> Any:
        """:func:`execute` for a batch of a known kind, of which only the plan's and the labels' numbers are checked."""
        images, changed, unwritten = leaf_at(batch, roles.images[0]), dict[Path, Any](), None
        pixels = decided.images.arranged(images)
        check_plan(pixels, plan, decided.images.dtype, has_mean=output["mean"] is not None)
        placed = pack(plan, images.device) if decided.images.implementation == "fused" else plan
        if decided.rule is not None:
            labels = leaf_at(batch, roles.labels[0])
            changed[roles.labels[0]], unwritten = decided.rule.prepare_alike(
                labels, placed, decided.target_implementation
            )
        out = _destination(images, inplace, self.memory, output)
        changed[roles.images[0]] = decided.images.call(images, placed, out, unwritten).run()
        return replace_at(batch, changed)


def _kind(batch: Any, roles: Roles, plan: MixPlan, inplace: bool, dtype: torch.dtype | None) -> tuple[Any, ...] | None:
    """All that decisions about a batch depend on, but its numbers; ``None`` for one that is decided each time.

    That is any but plain images, and labels at most.
    """
    if len(roles.images) > 1 or len(roles.labels) > 1 or roles.masks or roles.blended:
        return None
    if is_forward_mode() or is_transformed():
        return None
    kind: tuple[Any, ...] = roles, len(plan), takes_partners(plan.then), inplace, dtype
    devices = set()
    for path in roles.images + roles.labels:
        tensor = leaf_at(batch, path)
        if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.is_nested or tensor.is_neg():
            return None
        if tensor.requires_grad:
            return None
        devices.add(tensor.device)
        kind += tensor.shape, tensor.stride(), tensor.dtype, tensor.device
    return kind if len(devices) == 1 else None


def refuse_class_indices(batch: Any, roles: Roles) -> None:
    """Refuse masks of class indices for a transform that can blend, even if its next plan would not."""
    for path in roles.masks:
        with _naming(path, roles.masks):
            check_masks(leaf_at(batch, path), blends=True)


def _plan_for(value: Tensor, placed: MixPlan | PackedPlan, plan: MixPlan | PackedPlan) -> MixPlan | PackedPlan:
    """The plan that mixes ``value``: ``placed``, if it lies on the same device, else the original ``plan``."""
    return plan if isinstance(placed, PackedPlan) and placed.words.device != value.device else placed


def first_images(batch: Any, roles: Roles) -> Tensor:
    """The (first) images of a batch as a plain tensor, from which plans are drawn."""
    images = leaf_at(batch, roles.images[0])
    return images.like if isinstance(images, Unstacked) else _as_plain_batch(images)


def cast_images(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast mixed images by the rules of :func:`mixcollate.kernels.mix`: uint8 becomes floats in [0, 1]."""
    if images.dtype == dtype:
        return images
    batch = _as_plain_batch(images)
    return _alike(prepare(batch, identity(len(batch), (0, 0)), dtype=dtype).run(), images)


def plain(value: Tensor) -> Tensor:
    """The same memory as a plain ``torch.Tensor``, without the overhead and the overrides of a subclass."""
    if type(value) is Tensor:
        return value
    return check_tensor("each of images, labels and masks", value).as_subclass(Tensor)


def one_hot_masks(masks: Tensor, classes: int, ignore_index: int, *, volumes: bool = False) -> Tensor:
    """``[B, classes, H, W]`` float32 from class indices ``[B, H, W]`` (or ``[B, 1, H, W]``); ignored pixels are zero.

    Args:
        masks: class indices; of volumes ``[B, D, H, W]`` or ``[B, 1, D, H, W]``.
        classes: the number of classes.
        ignore_index: the number of pixels that belong to no class.
        volumes: whether these are masks of volumes.

    Raises:
        ValueError, TypeError: if they are not class indices; values on a GPU are not checked.
    """
    axes = "[B, D, H, W]" if volumes else "[B, H, W]"
    numbers = masks[:, 0] if masks.ndim == 4 + volumes and masks.shape[1] == 1 else masks
    if numbers.ndim != 3 + volumes or numbers.dtype.is_floating_point or numbers.dtype.is_complex:
        raise TypeError(
            f"masks must be class indices {axes} for mask_classes, got {tuple(masks.shape)} {masks.dtype}; those of "
            "volumes and video [B, C, T, H, W] take layout='BCDHW', of signals an axis of height 1: masks[:, None]"
        )
    numbers = numbers.to(torch.int64)
    known = numbers != ignore_index
    if is_readable(masks) and bool((((numbers < 0) | (numbers >= classes)) & known).any()):
        wrong = numbers[((numbers < 0) | (numbers >= classes)) & known]
        raise ValueError(
            f"masks must be class indices in 0 … {classes - 1} (or mask_ignore_index={ignore_index}), "
            f"got {int(wrong[0])}"
        )
    # new_zeros, since under vmap there must be rows for each sample
    rows = numbers.new_zeros(len(masks), classes, *numbers.shape[1:], dtype=torch.float32)
    places = torch.where(known, numbers, 0)[:, None]
    return rows.scatter_(1, places, known[:, None].to(torch.float32))


def _one_each(rules: Sequence[TargetRule], labels: Sequence[Path]) -> Sequence[TargetRule]:
    """One rule for each of the labels; a single rule without a number of classes applies to all."""
    if len(rules) == 1 and rules[0].num_classes is None:
        return [*rules] * len(labels)
    if rules and labels and len(rules) != len(labels):
        numbers = [rule.num_classes for rule in rules]
        raise ValueError(f"num_classes must be one for each of {len(labels)} labels, got {numbers}")
    return rules


def _as_plain_batch(images: Tensor) -> Tensor:
    """Plain ``[B, ...]``; a single image or video (which erasing transforms accept) becomes a batch of one."""
    if type(images) is Tensor:
        return images
    return plain(images)[None] if is_one_sample(images, type(images)) else plain(images)


def _run_images(
    images: Tensor | Unstacked,
    plan: MixPlan | PackedPlan,
    inplace: bool,
    memory: Stacking | None,
    options: dict[str, Any],
    unwritten: "UnwrittenTargets | None",
) -> Callable[[], Tensor]:
    """A function that mixes the images and writes the ``unwritten`` targets."""
    like = images.like if isinstance(images, Unstacked) else _as_plain_batch(images)
    if isinstance(images, Unstacked) and memory is not None:
        if options["memory_format"] is None and isinstance(plan, MixPlan):
            normal = {"mean": options["mean"], "std": options["std"]}
            fresh = memory.empty(tuple(like.shape), _result_dtype(like, options))
            return prepare_samples(images.samples, plan, **normal, out=fresh).run
        like, inplace = memory.join(images.samples), True
    out = _destination(like, inplace, memory, options)
    return decide(like, plan, **options, out=out).call(like, plan, out, unwritten).run


def _destination(images: Tensor, inplace: bool, memory: Stacking | None, options: dict[str, Any]) -> Tensor | None:
    """Where to write the mixed images; ``None`` if any new memory will do."""
    if options["memory_format"] is not None:
        return None
    dtype = _result_dtype(images, options)
    if inplace and dtype == images.dtype:
        return images
    if memory is not None and is_readable(images) and images.is_contiguous():
        return memory.empty(tuple(images.shape), dtype)
    return None


def _result_dtype(images: Tensor, options: dict[str, Any]) -> torch.dtype:
    normalised = options["mean"] is not None or options["std"] is not None
    return result_dtype(images, options["dtype"], normalised=normalised, out=None)


def _blended(value: Tensor, path: Path, plan: MixPlan | PackedPlan) -> Tensor:
    """``value [B, ...]`` blended by the labels' shares, in its dtype."""
    if not value.dtype.is_floating_point or value.ndim == 0:
        raise TypeError(
            f"blend_keys must name float tensors [B, ...], got {tuple(value.shape)} {value.dtype} at {dotted(path)}"
        )
    if len(value) != len(plan):
        raise ValueError(
            f"blend_keys must name tensors with a row for each of the {len(plan)} images, got {tuple(value.shape)} at "
            f"{dotted(path)}"
        )
    mixed = cast(Tensor, _VALUES.mix(plain(value), plan))
    return _alike(mixed.to(value.dtype), value)


def _alike(mixed: Tensor, value: Any) -> Tensor:
    """``mixed`` as the same tensor type as ``value``."""
    if isinstance(value, (Unstacked, Parameter)) or type(value) is Tensor:
        return mixed
    mixed = mixed[0] if is_one_sample(value, type(value)) else mixed
    if isinstance(value, tv_tensors.TVTensor):
        return cast(Tensor, tv_tensors.wrap(mixed, like=value))
    wrapped: Tensor = mixed.as_subclass(type(value))
    wrapped.__dict__.update(vars(value))
    return wrapped
