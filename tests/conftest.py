"""Tests run on one thread, and on each available device; without a GPU, kernels run in Triton's interpreter."""

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything defines a kernel

for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[name]  # in a pytest that a test starts, pytest-benchmark would take itself for a worker and skip


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def pytest_configure(config: pytest.Config) -> None:
    """Halve the time of Triton's interpreter, which patches Triton's language again for each call of a device function,
    although the launch has just done so.
    """
    if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
        return
    from triton.runtime import interpreter

    if hasattr(interpreter, "_patch_lang"):
        interpreter._patch_lang = _once_a_launch(interpreter._patch_lang, interpreter.tl)


def _once_a_launch(patch: Callable[..., Any], language: Any) -> Callable[..., Any]:
    """``patch``, skipped for functions that see modules which are patched already, until a launch restores them."""
    done = set()

    def patch_once(function: Any) -> Any:
        seen = tuple(
            any(value is part for value in function.__globals__.values()) for part in (language, language.core)
        )
        if seen in done:
            return None  # only a launch, which comes first, uses the result
        done.add(seen)
        scope = patch(function)
        restore = getattr(scope, "restore", None)  # older versions of Triton never restore
        if restore is not None:
            scope.restore = lambda: (done.clear(), restore())
        return scope

    return patch_once
