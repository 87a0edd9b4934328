"""The examples run, and do what they say."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, **arguments: Any) -> Any:
    return runpy.run_path(str(EXAMPLES / name))["main"](**arguments)


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"train_loop.py", "v2_pipeline.py", "article_recipe.py"}


def test_train_loop(capsys):
    assert run("train_loop.py", epochs=4, device="cpu") > 0.85
    assert "test accuracy" in capsys.readouterr().out


def test_v2_pipeline():
    images, targets = run("v2_pipeline.py")
    assert images.dtype == torch.float32
    assert images.shape == (64, 1, 8, 8)
    assert images.median() < -0.4  # normalised: most of it is background, once 0
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    assert ((targets > 0) & (targets < 1)).any()


def test_article_recipe():
    compared = run("article_recipe.py")
    assert len(compared) == 16
    for (theirs, their_gradient), (ours, our_gradient) in zip(compared[::2], compared[1::2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
        torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-5, atol=1e-8)
    assert [float(theirs) for theirs, _ in compared[::2]] == pytest.approx([2.3] * 8, abs=0.1)
