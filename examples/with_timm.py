"""The calls of timm's training script, with mixcollate in place of ``Mixup`` and ``FastCollateMixup``."""

import argparse

import numpy as np
import timm.optim
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_loader
from timm.loss import SoftTargetCrossEntropy
from torch.utils.data import Dataset

from mixcollate import DeviceLoader, MixupCollate

MEAN, STD = (0.31, 0.31, 0.31), (0.38, 0.38, 0.38)


class Digits(Dataset):
    """PIL images, which timm's loader gives its transforms."""

    transform = None

    def __init__(self) -> None:
        digits = load_digits()
        self.images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:512]
        self.labels = digits.target.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[object, int]:
        image = Image.fromarray(self.images[index]).convert("RGB").resize((32, 32))
        return self.transform(image), self.labels[index]


def main(*arguments: str) -> tuple[list[float], list[float]]:
    """Train; the loss of each epoch's last batch, and the share of rows that were mixed in each epoch."""
    parser = argparse.ArgumentParser()
    for name, default in {"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1}.items():
        parser.add_argument(f"--{name}", type=float, default=default)
    for name, default in {"mixup-off-epoch": 0, "epochs": 2, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    collate = MixupCollate.from_timm(
        args.mixup, args.cutmix, label_smoothing=args.smoothing, num_classes=10, mean=MEAN, std=STD
    )
    loader = create_loader(
        Digits(), 32, 64, is_training=True, num_workers=args.workers, collate_fn=collate, device=device
    )
    loader = DeviceLoader(loader.loader, device)  # in place of timm's PrefetchLoader, which would mix on the host
    model = timm.create_model("resnet18", num_classes=10, pretrained=False).to(device)
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1e-3)
    loss_fn = SoftTargetCrossEntropy()
    losses, soft = [], []
    for epoch in range(args.epochs):
        if args.mixup_off_epoch and epoch >= args.mixup_off_epoch and loader.mixup_enabled:
            loader.mixup_enabled = False  # acts at once, whatever the workers have stacked
        for inputs, targets in loader:
            loss = loss_fn(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
        soft.append((targets.max(1).values < 1 - args.smoothing).float().mean().item())
    return losses, soft


if __name__ == "__main__":
    print(main("--epochs", "4", "--mixup-off-epoch", "3"))
