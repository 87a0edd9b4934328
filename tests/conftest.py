"""Tests run on one thread, and on each available device; without a GPU, kernels run in Triton's interpreter."""

import os

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


def pytest_configure(config: pytest.Config) -> None:
    from mixcollate.kernels.support import has_right_triton

    if os.environ.get("TRITON_INTERPRET") == "1" and has_right_triton():
        from tests.quick_interpreter import quicken

        quicken()
