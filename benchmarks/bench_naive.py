"""How much faster is collating and mixing a batch than mixing its samples one by one, as the original article does?

Both turn uint8 samples in memory into one mixed batch with soft labels, MixUp with a draw for each pair, on one
thread: as uint8 (rounded), and as normalised float32. For a GPU both copy it there, too: ours as it was stacked, to
be mixed there; the naive way mixes on the host, as a dataset does, and copies the result. The least that has to be
moved is each sample once in and each mixed image once out; GB/s counts that for both.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.common import CLASSES, MEAN, STD, Rivals, dtype_name, scaled, shape_name
from mixcollate import MixUp, MixupCollate

SHAPE = scaled((128, 3, 224, 224), (4, 3, 16, 16))
Samples = list[tuple[Tensor, int]]

pytestmark = pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=["uint8", "normalised"])


@pytest.fixture(scope="module")
def samples() -> Samples:
    images = torch.randint(256, SHAPE, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return [(image.clone(), label % CLASSES) for label, image in enumerate(images)]


def new_collate(dtype: torch.dtype) -> MixupCollate:
    transform = MixUp(alpha=1.0, num_classes=CLASSES, seed=0)
    return MixupCollate(transform) if dtype == torch.uint8 else MixupCollate(transform, mean=MEAN, std=STD)


def ours(samples: Samples, collate: MixupCollate, device: torch.device) -> tuple[Tensor, Tensor]:
    images, targets = collate(samples).to(device)
    return images, targets


def naive(samples: Samples, plan: Any, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """``lam * a + (1 - lam) * b`` for each sample, then stack."""
    mean, std = torch.tensor(MEAN)[:, None, None] * 255, torch.tensor(STD)[:, None, None] * 255
    images, targets = [], []
    for (a, label_a), partner, lam in zip(samples, plan.partner.tolist(), plan.own_share.tolist(), strict=True):
        b, label_b = samples[partner]
        mixed = lam * a + (1 - lam) * b
        images.append(mixed.round().to(torch.uint8) if dtype == torch.uint8 else (mixed - mean) / std)
        rows = one_hot(torch.tensor([label_a, label_b]), CLASSES)
        targets.append(lam * rows[0] + (1 - lam) * rows[1])
    return torch.stack(images).to(device), torch.stack(targets).to(device)


def first_plan() -> Any:
    """What a new collate is going to draw first."""
    return MixUp(alpha=1.0, seed=0).make_plan(torch.empty(SHAPE, device="meta"))


def test_equal_work(samples: Samples, dtype: torch.dtype, device: torch.device) -> None:
    """Nothing is timed that is not the same: pixels to rounding, labels to float32."""
    expected, labels = naive(samples, first_plan(), dtype, device)
    images, targets = ours(samples, new_collate(dtype), device)
    tolerance = 1 if dtype == torch.uint8 else 1e-4
    torch.testing.assert_close(images.double(), expected.double(), rtol=0, atol=tolerance)
    torch.testing.assert_close(targets, labels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rival", ["mixcollate", "naive (sample by sample)"])
def test_collate_and_mix(race: Any, samples: Samples, dtype: torch.dtype, device: torch.device, rival: str) -> None:
    def rivals() -> Rivals:
        collate, plan = new_collate(dtype), first_plan()
        return {
            "mixcollate": lambda: ours(samples, collate, device),
            "naive (sample by sample)": lambda: naive(samples, plan, dtype, device),
        }

    race(
        rivals, rival, case=f"collate + MixUp, {shape_name(SHAPE)} to {dtype_name(dtype)}", device=device,
        images=SHAPE[0], moved=torch.Size(SHAPE).numel() * (1 + dtype.itemsize),
    )  # fmt: skip
