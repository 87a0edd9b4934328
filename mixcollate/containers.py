"""``RandomChoice`` and ``Compose``: several transforms as one, in one pass where a plan can hold them."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from typing_extensions import Unpack

from mixcollate.checks import check_probability, shown
from mixcollate.kernels import Axes
from mixcollate.plan import Draw, MixPlan, Per, chain, draw_from, identity, select
from mixcollate.transforms import LabelOptions, MixTransform

ROUNDING = 1e-6
"""By how much probabilities that sum to one may miss it."""


class RandomChoice(MixTransform):
    """Choose one of several transforms for each pair (sample, batch).

    What happens to labels is told here or by the transforms: those that are told it must agree. With ``per="pair"``
    both images of a pair are treated alike; where a chosen transform mixes twice (a ``Compose`` of two mixes), its
    second partners may have chosen otherwise, so that an image then counts more or less than once in its batch.

    Args:
        transforms: the transforms to choose from; those that mix must share one ``pairing``.
        p: their probabilities; what they lack to 1 is the probability that an image is left as it is. Default: all
            the same.
        per: how far one choice reaches; default: ``"pair"`` if any of them mixes mutual partners (``"matching"``,
            ``"flip"``), else ``"sample"``.
        options: ``inplace``, ``layout``, ``seed`` and what :class:`MixTransform` takes for labels.
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
            raise ValueError(f"the transforms of RandomChoice must share one pairing, got {sorted(map(str, pairings))}")
        self.mixes = mixes = bool(pairings)
        self.blends = any(transform.blends for transform in transforms)
        super().__init__(
            per=per if per is not None else ("pair" if mixes and pairings <= {"matching", "flip"} else "sample"),
            pairing=pairings.pop() if mixes else None,
            inplace=inplace,
            layout=_shared_layout(transforms, layout),
            seed=seed,
            **_shared_options(transforms, options),
        )
        chances = _check_chances(p, len(transforms))
        self.transforms = torch.nn.ModuleList(transforms)
        self._upper = np.cumsum(chances)  # transform k is chosen by numbers from upper[k - 1] on, none from the last on
        if self._upper[-1] > 1 - ROUNDING:
            self._upper = self._upper[:-1] / self._upper[-1]

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        choice = self._upper.searchsorted(draw.numbers.random(count), side="right")[unit]
        plans = [transform.draw_plan(draw) for transform in _members(self)]
        if len(self._upper) == len(plans):
            plans.append(identity(draw.shape[0], draw.size))
        return select(choice, plans, alike=self.per != "sample")


class Compose(MixTransform):
    """Do several transforms one after the other, in one pass where it can hold them all (mix, then erase).

    Where one mix follows another, labels are mixed twice, too: the second share counts what the first has put into the
    images evenly over their area, whatever part of it a box then shows.

    Args:
        transforms: in order.
        options: ``inplace``, ``layout``, ``seed`` and what :class:`MixTransform` takes for labels.
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
            per="sample",
            pairing=None if first is None else first.pairing,
            inplace=inplace,
            layout=_shared_layout(transforms, layout),
            seed=seed,
            **_shared_options(transforms, options),
        )
        self.transforms = torch.nn.ModuleList(transforms)

    def plan_batch(self, draw: Draw) -> MixPlan:
        first, *others = _members(self)
        plan, mixed = first.draw_plan(draw), first.mixes
        for transform in others:
            if transform.mixes and mixed:  # a second mix has partners of its own
                draw = draw_from(draw.numbers, draw.shape, transform.pairing, draw.epoch, draw.labels)
            plan, mixed = chain(plan, transform.draw_plan(draw)), mixed or transform.mixes
        return plan


def _members(container: RandomChoice | Compose) -> list[MixTransform]:
    return [member for member in container.transforms if isinstance(member, MixTransform)]


def _check_chances(p: Sequence[float] | None, count: int) -> list[float]:
    """One probability for each of ``count`` transforms; they sum to at most one."""
    if p is None:
        return [1 / count] * count
    is_list = isinstance(p, (Sequence, np.ndarray, torch.Tensor)) and getattr(p, "ndim", 1) > 0
    if not is_list or isinstance(p, str) or len(p) != count:
        raise ValueError(f"p must be one probability for each of {count} transforms, got {shown(p)}")
    chances = [check_probability(f"p[{k}]", chance) for k, chance in enumerate(p)]
    if not 0 < sum(chances) <= 1 + ROUNDING:
        raise ValueError(f"p must sum to at most 1 (the rest stays as it is), and to more than 0, got {chances}")
    return chances


def _check_transforms(name: str, transforms: Sequence[MixTransform]) -> list[MixTransform]:
    if not isinstance(transforms, (Sequence, torch.nn.ModuleList)):
        raise TypeError(f"{name} takes a list of transforms, got {type(transforms).__name__}")
    transforms = list(transforms)
    if not transforms:
        raise ValueError(f"{name} needs at least one transform, got transforms={transforms}")
    for transform in transforms:
        if not isinstance(transform, MixTransform):
            found = type(transform).__name__
            raise TypeError(f"{name} takes mixcollate's transforms, got {found}; put others around it in v2.Compose")
        if transform.stream.seed is not None:
            raise ValueError(f"seed must be given to {name}, not to the {type(transform).__name__} in it")
        if transform.inplace:
            raise ValueError(f"inplace must be given to {name}, not to the {type(transform).__name__} in it")
    return transforms


def _shared_layout(transforms: Sequence[MixTransform], layout: Axes | None) -> Axes | None:
    """The layout of the container, or of its members, which must be the same."""
    given = [one for one in (layout, *(transform.layout for transform in transforms)) if one is not None]
    if any(one != given[0] for one in given):
        raise ValueError(f"layout must be the same for all transforms in a container, got {given}; give it once")
    return given[0] if given else None


def _shared_options(transforms: Sequence[MixTransform], options: Mapping[str, object]) -> dict[str, Any]:
    """The options for labels that are given to a container or to its members, which must agree."""
    shared: dict[str, Any] = {}
    for name in LabelOptions.__annotations__:
        default = inspect.signature(MixTransform).parameters[name].default
        given = [options[name]] if name in options else []
        given += [getattr(t, name) for t in transforms if t.mixes and getattr(t, name) != default]
        if any(value != given[0] for value in given[1:]):
            raise ValueError(f"{name} must be the same for all transforms in a container, got {given}; give it once")
        if given:
            shared[name] = given[0]
    return shared
