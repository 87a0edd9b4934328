"""The calls of timm's training script, with mixcollate in place of ``Mixup`` and ``FastCollateMixup``."""

import argparse

import numpy as np
import timm.optim
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_loader
from timm.loss import SoftTargetCrossEntropy

from mixcollate import DeviceLoader, MixupCollate


class Digits(list):
    """PIL images and their labels; ``create_loader`` sets the transform."""

    def __getitem__(self, index: int) -> tuple[object, int]:
        image, label = super().__getitem__(index)
        return self.transform(image), label


digits = load_digits()
images = [Image.fromarray(image).convert("RGB").resize((32, 32)) for image in (digits.images * 15.9).astype(np.uint8)]
data = Digits(zip(images[:512], digits.target[:512].tolist(), strict=True))


def main(*arguments: str) -> tuple[list[float], list[float]]:
    """Train; return for each epoch the loss of its last batch, and the share of images that were mixed in it."""
    parser = argparse.ArgumentParser()
    defaults = {"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1, "mixup-off-epoch": 0, "epochs": 2, "workers": 0}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    collate = MixupCollate.from_timm(
        args.mixup, args.cutmix, label_smoothing=args.smoothing, num_classes=10, mean=0.31, std=0.38
    )
    loader = create_loader(data, 32, 64, is_training=True, num_workers=args.workers, collate_fn=collate, device=device)
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
