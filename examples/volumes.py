"""Volumes ``[B, C, D, H, W]``: boxes reach through all slices; mean and standard deviation belong to channels."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mixcollate import CutMix, MixUp, MixupCollate, RandomChoice

generator = torch.Generator().manual_seed(0)
grid = torch.stack(
    torch.meshgrid(*(torch.linspace(-1, 1, side) for side in (8, 12, 10)), indexing="ij")
)  # [3, D, H, W]
labels = torch.arange(32) % 2
radius = (grid**2).sum(0).sqrt()  # a ball is class 0, a cube is class 1
shapes = torch.stack([radius < 0.7, grid.abs().amax(0) < 0.6]).float()
noise = torch.rand(32, 2, 8, 12, 10, generator=generator)
volumes = (shapes[labels, None] * 0.7 + noise * 0.3 * torch.tensor([1.0, 0.2])[:, None, None, None]).clamp(0, 1)


def main() -> tuple[Tensor, Tensor]:
    """One mixed batch of volumes with two channels (two kinds of scan, say), with their targets."""
    collate = MixupCollate(
        RandomChoice([MixUp(), CutMix()]), num_classes=2, mean=(0.3, 0.2), std=(0.3, 0.3), layout="BCDHW", seed=0
    )
    mixed, targets = next(iter(DataLoader(TensorDataset(volumes, labels), 16, collate_fn=collate)))
    print("volumes", tuple(mixed.shape), mixed.dtype, "targets", tuple(targets.shape))
    return mixed, targets


if __name__ == "__main__":
    main()
