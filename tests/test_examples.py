"""The examples run, and do what they say."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mixcollate.kernels import pack

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, **arguments: Any) -> Any:
    return runpy.run_path(str(EXAMPLES / name))["main"](**arguments)


def test_every_example_is_tested():
    here, integrations = Path(__file__), Path(__file__).parent / "integrations"
    for path in EXAMPLES.glob("*.py"):
        assert path.name in here.read_text() or (integrations / f"test_{path.name}").exists(), path.name


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path.name


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


def test_plain_pytorch(tmp_path):
    accuracy, whole = run("plain_pytorch.py", epochs=3, compiled=False)
    assert accuracy > 0.8
    checkpoint = tmp_path / "middle.pt"
    run("plain_pytorch.py", epochs=3, compiled=False, checkpoint=checkpoint, stop_at=20)
    again, resumed = run("plain_pytorch.py", epochs=3, compiled=False, checkpoint=checkpoint)
    assert again == accuracy
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def losses_of_two_ranks(workers):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(EXAMPLES / "ddp.py"), str(workers)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    # two processes write to one pipe, so that a line may come before the other's has ended
    return sorted(re.findall(r"rank \d, epoch \d: loss [\d.]+, plans drawn \d+", done.stdout))


@pytest.mark.slow  # two launches of two ranks
def test_ddp():
    first, again = losses_of_two_ranks(0), losses_of_two_ranks(1)
    assert first == again  # the same run with another number of workers is the same
    assert len(first) == 4 and all("plans drawn" in line for line in first)
    losses = [line.split("loss ")[1] for line in first]
    assert len(set(losses)) == 4  # ranks draw plans of their own


def test_torchvision_recipe():
    losses = run("torchvision_recipe.py")
    assert len(losses) == 4 and all(1 < loss < 5 for loss in losses)


def test_segmentation():
    accuracy, mixed = run("segmentation.py")
    assert accuracy > 0.85
    assert mixed.dtype == torch.int64 and set(mixed.unique().tolist()) <= {0, 1, 2, 255}


def test_multi_label():
    accuracy, targets = run("multi_label.py")
    assert accuracy > 0.88
    assert ((targets > 0) & (targets < 1)).any() and targets.isnan().any() and not targets[:, :3].isnan().any()


def test_audio():
    accuracy, pictures, targets = run("audio.py")
    assert accuracy > 0.8
    assert pictures.shape == (64, 1, 65, 129)
    torch.testing.assert_close(targets.sum(1), torch.ones(64))


def test_video():
    mixed, targets = run("video.py")
    assert mixed.shape == (16, 6, 1, 8, 16) and targets.shape == (16, 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(16))


def test_volumes():
    mixed, targets = run("volumes.py")
    assert mixed.shape == (16, 2, 8, 12, 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(16))


def test_own_method():
    """Image k is all colour k, so that an output's colours are its label; every image shows some of its partner."""
    images, targets = run("own_method.py")
    torch.testing.assert_close(images.mean((2, 3)), targets, rtol=0, atol=1e-6)  # float32
    assert (targets.diagonal() < 1).all()
    text = (EXAMPLES / "own_method.py").read_text()
    assert len(text.splitlines()) <= 40
    assert {line for line in text.splitlines() if "mixcollate import" in line} == {
        "from mixcollate import Draw, MixPlan, MixTransform"
    }


def test_the_plans_of_an_own_method_are_packed_alike():
    """Even with few images, of which a permutation sometimes makes pairs."""
    grid_mix = runpy.run_path(str(EXAMPLES / "own_method.py"))["GridMix"](per="sample", pairing="shuffle", seed=0)
    assert len({pack(grid_mix.make_plan(torch.empty(4, 3, 16, 16)), "cpu").layout for _ in range(20)}) == 1
