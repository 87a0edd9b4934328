"""``mixcollate::mix`` and ``mixcollate::mix_``, the registered operators: what ``torch.compile`` sees of ``mix``."""

from typing import Any

import torch
from torch import Tensor

from mixcollate.kernels import Impl, empty_like, mix
from mixcollate.kernels.checks import check_images, check_out, check_plan, result_dtype
from mixcollate.kernels.packed import PackedPlan, layout_from_key


def _operator(
    images: Tensor,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> Tensor:
    plan = PackedPlan(words, layout_from_key(layout))
    return mix(images, plan, mean=mean, std=std, dtype=dtype, memory_format=memory_format, impl=impl)


def _operator_(
    out: Tensor,
    images: Tensor | None,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> None:
    plan, source = PackedPlan(words, layout_from_key(layout)), out if images is None else images
    mix(source, plan, mean=mean, std=std, dtype=dtype, memory_format=memory_format, out=out, impl=impl)


def _fake_operator(
    images: Tensor,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> Tensor:
    plan, normalised = PackedPlan(words, layout_from_key(layout)), mean is not None or std is not None
    check_images(images, plan)
    dtype = result_dtype(images, dtype, normalised=normalised, out=None)
    check_plan(images, plan, dtype, normalised=mean is not None)
    return empty_like(images, dtype, memory_format)


def _fake_operator_(
    out: Tensor,
    images: Tensor | None,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> None:
    plan, source = PackedPlan(words, layout_from_key(layout)), out if images is None else images
    check_images(source, plan)
    check_plan(source, plan, out.dtype, normalised=mean is not None)
    if images is not None:
        check_out(source, out, out.dtype if dtype is None else dtype, memory_format)


_ARGUMENTS = (
    "Tensor words, str layout, float[]? mean, float[]? std, ScalarType? dtype, MemoryFormat? memory_format, str impl"
)


# torch.library.custom_op would cost several times as much a call; neither has types
_LIBRARY: Any = torch.library.Library("mixcollate", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"mix(Tensor images, {_ARGUMENTS}) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
_LIBRARY.define(f"mix_(Tensor(a!) out, Tensor? images, {_ARGUMENTS}) -> ()", tags=torch.Tag.pt2_compliant_tag)
for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("mix", _operator, _device)
    _LIBRARY.impl("mix_", _operator_, _device)
torch.library.register_fake("mixcollate::mix", _fake_operator, lib=_LIBRARY)
torch.library.register_fake("mixcollate::mix_", _fake_operator_, lib=_LIBRARY)
