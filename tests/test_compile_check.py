"""A few kernels compile for a few other architectures; ``make compile-check`` compiles all of them for all."""

import pytest

from mixcollate.kernels.support import FUSED_FROM, has_right_triton

pytest.importorskip("triton", reason="Triton is not installed")
if not has_right_triton():
    pytest.skip(
        f"this torch's Triton does not compile the kernels: they need torch {FUSED_FROM}", allow_module_level=True
    )


def test_a_sample_compiles_elsewhere():
    """By a process of its own: in this one Triton may be interpreting."""
    from tests.ahead_of_time import compiling

    lines = compiling("tests.compile_check", "--sample").splitlines()[1:]
    assert [line.split()[:4] for line in lines] == [[name, "2", "0", "0"] for name in ("sm_75", "sm_89", "gfx942")]
