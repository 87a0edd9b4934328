"""Triton's interpreter in half of its time: what it does again for each operation is done once, or not at all."""

import dataclasses
import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any


def quicken() -> None:
    """Change ``triton.runtime.interpreter`` in this process; kernels compute what they did before."""
    from triton.runtime import interpreter

    interpreter._patch_lang = _once_a_launch(interpreter._patch_lang, interpreter.tl)
    interpreter._get_np_dtype = _once_a_name(interpreter._get_np_dtype)
    # Whether whole numbers overflow is computed in 64 bits, to be asserted only where ``debug`` is set: it is not.
    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)


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
