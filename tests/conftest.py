"""Tests run on one thread, and on each available device; without a GPU, kernels run in Triton's interpreter."""

import io
import os
import sys
from collections.abc import Callable

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton, which defines some kernels itself

for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[name]  # in a pytest that a test starts, pytest-benchmark would take itself for a worker and skip


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], io.BytesIO]:
    """Call it to have printed to streams that know only ASCII; pytest changes the streams after fixtures."""

    def begin() -> io.BytesIO:
        printed = io.BytesIO()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(printed, "ascii", write_through=True))
        return printed

    return begin


def pytest_configure(config: pytest.Config) -> None:
    from mixcollate.kernels.support import has_right_triton

    if os.environ.get("TRITON_INTERPRET") == "1" and has_right_triton():
        from tests.quick_interpreter import quicken

        quicken()
