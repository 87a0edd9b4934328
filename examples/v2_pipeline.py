"""Transforms for whole batches inside torchvision's v2 pipelines: in v2.Compose, and in a plain collate_fn."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.transforms import v2

from mixcollate import CutMix, MixUp, RandomChoice, RandomErasing

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
labels = torch.from_numpy(digits.target).long()

pipeline = v2.Compose(
    [
        v2.RandomAffine(degrees=10),  # torchvision's transforms draw once for the whole batch
        RandomChoice([MixUp(alpha=0.8), CutMix()], num_classes=10),  # once for each pair
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean=[0.31], std=[0.38]),
        RandomErasing(p=0.25, value="random"),
    ]
)


def collate(samples: list[Any]) -> tuple[Tensor, Tensor]:
    """Stack samples, then run the pipeline on the batch, in the worker."""
    mixed, targets = pipeline(*default_collate(samples))
    return mixed, targets


def main() -> tuple[Tensor, Tensor]:
    """Run the pipeline on a batch by hand, then as a collate_fn; return a batch of the latter."""
    torch.manual_seed(0)
    mixed, targets = pipeline(images[:64], labels[:64])
    print("by hand:", tuple(mixed.shape), mixed.dtype, "targets", tuple(targets.shape))
    loader = DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True, collate_fn=collate)
    mixed, targets = next(iter(loader))
    print("from a loader:", tuple(mixed.shape), "first target:", [round(share, 2) for share in targets[0].tolist()])
    return mixed, targets


if __name__ == "__main__":
    main()
