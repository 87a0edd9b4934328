"""Dense or sparse targets: what do they cost as classes grow, alone and with their loss?

Bytes: for targets, the dense float32 rows written once; for losses, logits read and gradients written once.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.common import CLOCKS, Rivals, copy_of, scaled
from benchmarks.peers import imported, where
from mixcollate import MixUp, soft_cross_entropy
from mixcollate.targets import TargetRule

CLASS_COUNTS = scaled([10, 100, 1000, 10_000, 21_843], [10, 100])


def batch_for(device: torch.device) -> int:
    return scaled(4096 if device.type == "cuda" else 256, 4)


def plan_and_labels(classes: int, device: torch.device):
    batch = batch_for(device)
    images = torch.empty((batch, 3, 224, 224), device="meta")
    return MixUp().make_plan(images), torch.randint(classes, (batch,), device=device)


@pytest.mark.parametrize("rival", ["copy", "mixcollate dense", "mixcollate", "timm mixup_target", "one_hot and roll"])
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_targets(race, device, classes, rival):
    moved = batch_for(device) * classes * 4

    def rivals() -> Rivals:
        plan, labels = plan_and_labels(classes, device)
        dense, sparse = TargetRule(num_classes=classes), TargetRule(num_classes=classes, targets="sparse")
        own = torch.rand(len(labels), 1, device=device)

        def roll() -> Tensor:
            rows = functional.one_hot(labels, classes).float()
            return rows.roll(1, 0).mul_(0.3).add_(rows.mul(0.7))  # as torchvision's v2.MixUp does

        return {
            "copy": copy_of(moved, device),
            "mixcollate dense": lambda: dense.mix(labels, plan),
            "mixcollate": lambda: sparse.mix(labels, plan),
            "timm mixup_target": where(
                imported("timm.data.mixup"), lambda m: lambda: m.mixup_target(labels, classes, own)
            ),
            "one_hot and roll": roll,
        }

    race(
        rivals, rival, case=f"targets for {classes} classes (mixcollate: sparse), batch {batch_for(device)}",
        device=device, images=batch_for(device), moved=moved, info={"size": classes},
    )  # fmt: skip


LOSSES = ["copy", "mixcollate", "mixcollate dense", "dense + F.cross_entropy", "two F.cross_entropy of indices"]


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("rival", LOSSES)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_loss(race, device, classes, rival, clock):
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    batch = batch_for(device)
    moved = batch * classes * 2 * dtype.itemsize

    def rivals() -> Rivals:
        plan, labels = plan_and_labels(classes, device)
        dense, sparse = TargetRule(num_classes=classes), TargetRule(num_classes=classes, targets="sparse")
        logits = torch.randn(batch, classes, device=device, dtype=dtype, requires_grad=True)

        def step(loss):
            def run() -> None:
                logits.grad = None
                loss().backward()

            return run

        def two() -> Tensor:
            (first, second), own = sparse.mix(labels, plan).labels.T, 0.7
            return own * functional.cross_entropy(logits, first) + (1 - own) * functional.cross_entropy(logits, second)

        return {
            "copy": copy_of(moved, device),
            "mixcollate": step(lambda: soft_cross_entropy(logits, sparse.mix(labels, plan))),
            "mixcollate dense": step(lambda: soft_cross_entropy(logits, dense.mix(labels, plan))),
            "dense + F.cross_entropy": step(
                lambda: functional.cross_entropy(logits, dense.mix(labels, plan).to(dtype))
            ),
            "two F.cross_entropy of indices": step(two),
        }

    against = ["dense + F.cross_entropy"]
    goals = {"G10": ("mixcollate", against)}
    if clock == "device":
        goals = {"G10 device": ("mixcollate", against), "G10 dense": ("mixcollate dense", against)}
    race(
        rivals, rival, case=f"targets + loss, forward and backward, {classes} classes (mixcollate: sparse), "
        f"batch {batch}", device=device, clock=clock, images=batch, moved=moved, info={"size": classes},
        goals=goals if device.type == "cuda" and classes == CLASS_COUNTS[-1] else {},
    )  # fmt: skip
