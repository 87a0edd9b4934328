"""``mixcollate::mix`` and ``mixcollate::mix_``, the registered operators: what ``torch.compile`` sees of ``mix``."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from mixcollate.kernels import Impl, affine, empty_like, mix
from mixcollate.kernels.checks import check_images, check_out, check_plan, result_dtype
from mixcollate.kernels.packed import PackedPlan, layout_from_key


def _read(
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> tuple[PackedPlan, dict[str, Any]]:
    """The plan, and the options of ``mix``, from ``_ARGUMENTS``."""
    options = {"mean": mean, "std": std, "dtype": dtype, "memory_format": memory_format, "impl": impl}
    return PackedPlan(words, layout_from_key(layout)), options


def _operator(images: Tensor, *arguments: Any) -> Tensor:
    plan, options = _read(*arguments)
    return mix(images, plan, **options)


def _operator_(out: Tensor, images: Tensor | None, *arguments: Any) -> None:
    plan, options = _read(*arguments)
    mix(out if images is None else images, plan, out=out, **options)


def _fake_operator(images: Tensor, *arguments: Any) -> Tensor:
    plan, options = _read(*arguments)
    normalised = options["mean"] is not None or options["std"] is not None
    check_images(images, plan)
    dtype = result_dtype(images, options["dtype"], normalised=normalised, out=None)
    check_plan(images, plan, dtype, normalised=options["mean"] is not None)
    _prepare(images, options, dtype)
    return empty_like(images, dtype, options["memory_format"])


def _fake_operator_(out: Tensor, images: Tensor | None, *arguments: Any) -> None:
    plan, options = _read(*arguments)
    source = out if images is None else images
    check_images(source, plan)
    check_plan(source, plan, out.dtype, normalised=options["mean"] is not None)
    if images is not None:
        check_out(source, out, options["dtype"] or out.dtype, options["memory_format"])
    _prepare(source, options, out.dtype)


def _prepare(images: Tensor, options: dict[str, Any], dtype: torch.dtype) -> None:
    """Bring mean and std to the device now: what is made while a CUDA graph is recorded belongs to the graph."""
    if images.device.type != "cuda" or torch.cuda.is_available():
        with unset_fake_temporarily():
            affine(images, options["mean"], options["std"], dtype)


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
