"""``mixcollate::mix`` and ``mixcollate::mix_``, the registered operators that ``torch.compile`` sees for ``mix``."""

from typing import Any

import torch
from torch import Tensor

from mixcollate.kernels.packed import PackedPlan, layout_from_key
from mixcollate.kernels.prepare import Call, prepare
from mixcollate.kernels.support import Impl

_ARGUMENTS = (
    "Tensor words, str layout, float[]? mean, float[]? std, ScalarType? dtype, MemoryFormat? memory_format, str impl"
)


def _prepare(
    images: Tensor,
    out: Tensor | None,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> Call:
    """Check a call of ``mix`` with ``_ARGUMENTS`` and allocate its result; the fake operators do no more."""
    plan = PackedPlan(words, layout_from_key(layout))
    return prepare(images, plan, mean=mean, std=std, dtype=dtype, memory_format=memory_format, out=out, impl=impl)


def _operator(images: Tensor, *arguments: Any) -> Tensor:
    return _prepare(images, None, *arguments).run()


def _operator_(out: Tensor, images: Tensor | None, *arguments: Any) -> None:
    _prepare(out if images is None else images, out, *arguments).run()


def _fake_operator(images: Tensor, *arguments: Any) -> Tensor:
    return _prepare(images, None, *arguments).out


def _fake_operator_(out: Tensor, images: Tensor | None, *arguments: Any) -> None:
    _prepare(out if images is None else images, out, *arguments)


# A call of an operator made by torch.library.custom_op would cost several times as much. Neither API is typed.
_LIBRARY: Any = torch.library.Library("mixcollate", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"mix(Tensor images, {_ARGUMENTS}) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
_LIBRARY.define(f"mix_(Tensor(a!) out, Tensor? images, {_ARGUMENTS}) -> ()", tags=torch.Tag.pt2_compliant_tag)
_LIBRARY.impl("mix", _operator, "CompositeExplicitAutograd")  # on every device; the implementation is chosen inside
_LIBRARY.impl("mix_", _operator_, "CompositeExplicitAutograd")
torch.library.register_fake("mixcollate::mix", _fake_operator, lib=_LIBRARY)
torch.library.register_fake("mixcollate::mix_", _fake_operator_, lib=_LIBRARY)
