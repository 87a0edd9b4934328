"""Triton's interpreter in a third of its time: what it computes again for each operation is computed once."""

import dataclasses
import functools
import math
from collections.abc import Callable
from types import FunctionType
from typing import Any


def quicken() -> None:
    """Change ``triton.runtime.interpreter`` in this process; kernels compute what they did before."""
    from triton.runtime import interpreter

    language = interpreter.tl.core
    interpreter._patch_lang = _once_a_launch(interpreter._patch_lang, interpreter.tl)
    interpreter._get_np_dtype = _once_a_name(interpreter._get_np_dtype)
    # Whether whole numbers overflow is computed in 64 bits, to be asserted only where ``debug`` is set: it is not.
    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    language.dtype.__eq__ = _same_or(language.dtype.__eq__)
    _share_shapes(language, type(interpreter.interpreter_semantic))


def _once_a_launch(patch: Callable[..., Any], language: Any) -> Callable[..., Any]:
    """``patch``, which each call of a device function calls again, skipped for functions that see modules which are
    patched already, until a launch restores them.
    """
    done = set()

    @functools.cache
    def modules_of(function: FunctionType) -> tuple[bool, ...]:
        seen = function.__globals__.values()
        return tuple(any(value is part for value in seen) for part in (language, language.core))

    def patch_once(function: FunctionType) -> Any:
        seen = modules_of(function)
        if seen in done:
            return None  # only a launch, which comes first, uses the result
        done.add(seen)
        scope = patch(function)
        restore = getattr(scope, "restore", None)  # older versions of Triton never restore
        if restore is not None:
            scope.restore = lambda: (done.clear(), restore())
        return scope

    return patch_once


def _once_a_name(numpy_dtype: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[str, Any] = {}

    def known_dtype(dtype: Any) -> Any:
        if dtype.name not in known:
            known[dtype.name] = numpy_dtype(dtype)
        return known[dtype.name]

    return known_dtype


def _same_or(equal: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda one, other: one is other or equal(one, other)


def _share_shapes(language: Any, semantic: Any) -> None:
    """What is of one shape has one shape, which is checked and wrapped once, and needs no broadcasting."""
    block_type, tensor, constexpr = language.block_type, language.tensor, language.constexpr
    first_of_a_type, broadcast = block_type.__init__, semantic.broadcast_impl_value
    types: dict[Any, dict[str, Any]] = {}
    scalar = (language.tuple([]), constexpr(1))
    shapes: dict[tuple[int, ...], Any] = {}

    def init_type(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = tuple([size.value if isinstance(size, constexpr) else size for size in shape])
        key = element_ty.name, sizes
        if key not in types:
            first_of_a_type(self, element_ty, shape)
            if sizes not in shapes:
                shapes[sizes] = language.tuple([constexpr(size) for size in sizes]), constexpr(math.prod(sizes))
            types[key] = {**vars(self), "of_tensors": shapes[sizes]}
        vars(self).update(types[key])

    def init_tensor(self: Any, handle: Any, type: Any) -> None:
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = type.of_tensors if type.is_block() else scalar

    def broadcast_different(self: Any, lhs: Any, rhs: Any) -> Any:
        return (lhs, rhs) if lhs.shape is rhs.shape else broadcast(self, lhs, rhs)

    block_type.__init__, tensor.__init__, semantic.broadcast_impl_value = init_type, init_tensor, broadcast_different
