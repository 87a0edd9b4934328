"""Video ``[B, T, C, H, W]``: one draw for each clip, with the same box in all of its frames."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mixcollate import CutMix, MixUp, MixupCollate, RandomChoice

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
wide = torch.nn.functional.pad(images[:64], (0, 8))  # a digit that moves to the right, one pixel a frame
clips = torch.stack([wide.roll(frame, dims=3) for frame in range(6)], 1)  # [64, 6, 1, 8, 16]
labels = torch.from_numpy(digits.target[:64]).long()


def main() -> tuple[Tensor, Tensor]:
    """Return one mixed batch of clips and its targets."""
    collate = MixupCollate(RandomChoice([MixUp(), CutMix()]), num_classes=10, mean=0.31, std=0.38, seed=0)
    mixed, targets = next(iter(DataLoader(TensorDataset(clips, labels), 16, collate_fn=collate)))
    print("clips", tuple(mixed.shape), mixed.dtype, "targets", tuple(targets.shape))
    return mixed, targets


if __name__ == "__main__":
    main()
