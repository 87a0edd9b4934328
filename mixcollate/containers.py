"""``RandomChoice`` and ``Compose``: several transforms as one, in a single pass over the pixels if possible."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from typing_extensions import Unpack

from mixcollate.checks import check_probability, is_list, shown
from mixcollate.draw import Draw, Per, draw_from
from mixcollate.kernels import Axes
from mixcollate.plan import MixPlan, chain, identity, select
from mixcollate.transforms import LabelOptions, MixTransform

ROUNDING = 1e-6
"""Tolerance for probabilities that sum to one."""


class _Container(MixTransform):
    """A transform made of others, which are its submodules."""

    def _hold(self, transforms: Sequence[MixTransform]) -> None:
        for number, transform in enumerate(transforms):
            self.add_module(str(number), transform)

    @property
    def transforms(self) -> tuple[MixTransform, ...]:
        """The transforms, in order."""
        return tuple(self._modules.values())  # type: ignore[arg-type]  # no other submodules


class RandomChoice(_Container):
    """Choose one of several transforms for each pair (sample, batch).

    Options for labels can be given here or to the transforms. Where they are given more than once, they must agree;
    what a transform has by default does not count.
    With ``per="pair"`` both images of a pair get the same transform. If that mixes twice (a ``Compose`` of two mixes),
    the second partner may have got another one, so that an image can count more or less than once in its batch.

    Args:
        transforms: the transforms to choose from; those that mix must have the same ``pairing``.
        p: their probabilities; if they sum to less than 1, the rest is the probability that an image is left unchanged.
            Default: all equal.
        per: what one choice applies to; default: ``"batch"`` if all of them draw for whole batches, else ``"pair"`` if
            any of them mixes mutual partners (``"matching"``, ``"flip"``), else ``"sample"``.
        options: ``inplace``, ``layout``, ``seed`` and the options of :class:`MixTransform` for labels.
    """

    def __init__(
        self,
        transforms: Sequence[MixTransform],
        *,
        p: Sequence[float] | None = None,
        per: Per | None = None,
        inplace: bool = False,
        layout: Axes | None = None,
        seed: int | None = None,
        **options: Unpack[LabelOptions],
    ) -> None:
        transforms = _check_transforms("RandomChoice", transforms)
        pairings = {t.pairing for t in transforms if t.mixes}
        if len(pairings) > 1:
            raise ValueError(f"the transforms of RandomChoice must share a pairing, got {sorted(map(str, pairings))}")
        self.mixes = mixes = bool(pairings)
        self.blends = any(transform.blends for transform in transforms)
        if per is None:
            mutual = mixes and pairings <= {"matching", "flip"}
            per = "batch" if all(t.per == "batch" for t in transforms) else "pair" if mutual else "sample"
        super().__init__(
            per=per,
            pairing=pairings.pop() if mixes else None,
            inplace=inplace,
            layout=_shared_layout(transforms, layout),
            seed=seed,
            **_shared_options(transforms, options),
        )
        self._chances = chances = _check_chances(p, len(transforms))
        self._hold(transforms)
        self._upper = np.cumsum(chances)  # a number in [upper[k - 1], upper[k]) chooses transform k, a larger one none
        if self._upper[-1] > 1 - ROUNDING:
            self._upper = self._upper[:-1] / self._upper[-1]

    def extra_repr(self) -> str:
        """The hyper-parameters that differ from the defaults."""
        chances = "" if self._chances == _check_chances(None, len(self._chances)) else f"p={self._chances}"
        return ", ".join(filter(None, [chances, super().extra_repr()]))

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        choice = self._upper.searchsorted(draw.numbers.random(count), side="right")[unit]
        plans = [transform.draw_plan(draw) for transform in self.transforms]
        if len(self._upper) == len(plans):
            plans.append(identity(draw.shape[0], draw.size))
        return select(choice, plans, alike=self.per != "sample")


class Compose(_Container):
    """Apply several transforms in sequence, in a single pass if possible (mix, then erase).

    If one mix follows another, labels are mixed twice, too. The second mix then assumes that the first has mixed each
    image evenly over its area, whatever part of it a box shows.

    Args:
        transforms: the transforms, in order.
        options: ``inplace``, ``layout``, ``seed`` and the options of :class:`MixTransform` for labels.
    """

    def __init__(
        self,
        transforms: Sequence[MixTransform],
        *,
        inplace: bool = False,
        layout: Axes | None = None,
        seed: int | None = None,
        **options: Unpack[LabelOptions],
    ) -> None:
        transforms = _check_transforms("Compose", transforms)
        first = next((t for t in transforms if t.mixes), None)
        self.mixes = first is not None
        self.blends = any(transform.blends for transform in transforms)
        super().__init__(
            per="batch" if all(t.per == "batch" for t in transforms) else "sample",
            pairing=None if first is None else first.pairing,
            inplace=inplace,
            layout=_shared_layout(transforms, layout),
            seed=seed,
            **_shared_options(transforms, options),
        )
        self._hold(transforms)

    def plan_batch(self, draw: Draw) -> MixPlan:
        first, *others = self.transforms
        plan, mixed = first.draw_plan(draw), first.mixes
        for transform in others:
            if transform.mixes and mixed:  # a second mix has its own partners
                draw = draw_from(draw.numbers, draw.shape, transform.pairing, draw.epoch, draw.labels)
            plan, mixed = chain(plan, transform.draw_plan(draw)), mixed or transform.mixes
        return plan


def _check_chances(p: Sequence[float] | None, count: int) -> list[float]:
    """A probability for each of ``count`` transforms, which sum to at most one."""
    if p is None:
        return [1 / count] * count
    if not is_list(p) or len(p) != count:
        raise ValueError(f"p must be one probability for each of {count} transforms, got {shown(p)}")
    chances = [check_probability(f"p[{k}]", chance) for k, chance in enumerate(p)]
    if not 0 < sum(chances) <= 1 + ROUNDING:
        raise ValueError(f"p must sum to more than 0 and at most 1 (the rest is left unchanged), got {chances}")
    return chances


def _check_transforms(name: str, transforms: Sequence[MixTransform]) -> list[MixTransform]:
    if not isinstance(transforms, (Sequence, torch.nn.ModuleList)):
        raise TypeError(f"{name} takes a list of transforms, got {type(transforms).__name__}")
    transforms = list(transforms)
    if not transforms:
        raise ValueError(f"{name} needs at least one transform, got transforms={transforms}")
    for transform in transforms:
        if not isinstance(transform, MixTransform):
            found, way_out = type(transform).__name__, "put others around it in v2.Compose"
            if isinstance(transform, type):
                found, way_out = repr(transform), f"write {transform.__name__}()"
            elif isinstance(transform, (torch.Tensor, tuple, Mapping)):  # a sample, from a loader
                way_out = f"collate_fn must be MixupCollate(...) of what {name}([...]) makes, not the class itself"
            raise TypeError(f"{name} takes mixcollate's transforms, got {found}; {way_out}")
        if transform.stream.seed is not None:
            raise ValueError(f"seed must be given to {name}, not to the {type(transform).__name__} in it")
        if transform.inplace:
            raise ValueError(f"inplace must be given to {name}, not to the {type(transform).__name__} in it")
    return transforms


def _shared_layout(transforms: Sequence[MixTransform], layout: Axes | None) -> Axes | None:
    """The layout that a container or its members were given, which must agree."""
    given = [one for one in (layout, *(transform.layout for transform in transforms)) if one is not None]
    _refuse_differences("layout", given)
    return given[0] if given else None


def _shared_options(transforms: Sequence[MixTransform], options: Mapping[str, object]) -> dict[str, Any]:
    """The options for labels that a container or its members were given, which must agree."""
    shared: dict[str, Any] = {}
    for name in LabelOptions.__annotations__:
        default = inspect.signature(MixTransform).parameters[name].default
        given = [options[name]] if name in options else []
        given += [getattr(t, name) for t in transforms if t.mixes and getattr(t, name) != default]
        _refuse_differences(name, given)
        if given:
            shared[name] = given[0]
    return shared


def _refuse_differences(name: str, given: Sequence[object]) -> None:
    """Refuse values of an option of which a container can have only one."""
    if any(value != given[0] for value in given[1:]):
        raise ValueError(f"{name} must be the same for all transforms in a container, got {given}; pass it once")
