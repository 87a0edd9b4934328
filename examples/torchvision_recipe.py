"""torchvision's recipe for classification, with our transforms in place of its ``RandomChoice([MixUp, CutMix])``."""

import argparse

import torch
import torchvision
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from mixcollate import CutMix, DeviceLoader, MixUp, MixupCollate, RandomChoice

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
images = v2.functional.resize(images[:256], [32, 32]).expand(-1, 3, -1, -1)
data = TensorDataset(images, torch.from_numpy(digits.target[:256]).long())


def main(*arguments: str) -> list[float]:
    """Train for a few batches with the recipe's arguments; return the losses."""
    parser = argparse.ArgumentParser()
    for name, default in {"--mixup-alpha": 0.2, "--cutmix-alpha": 1.0, "--label-smoothing": 0.1, "--lr": 0.01}.items():
        parser.add_argument(name, default=default, type=float)
    args = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    # three lines in place of the recipe's get_mixup_cutmix(...) and collate_fn
    mixing = RandomChoice([MixUp(alpha=args.mixup_alpha), CutMix(alpha=args.cutmix_alpha)])
    collate = MixupCollate(mixing, num_classes=10, mean=0.31, std=0.38)
    loader = DataLoader(data, 64, shuffle=True, collate_fn=collate, pin_memory=device.type == "cuda")

    model = torchvision.models.resnet18(num_classes=10).to(device)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)  # accepts soft targets
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    model.train()
    losses = []
    # the recipe's loop, `for image, target in loader`, would mix on the host, where it unpacks batches;
    # DeviceLoader mixes them on the device first
    for image, target in DeviceLoader(loader, device):
        loss = criterion(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print("losses", [round(loss, 2) for loss in losses])
    return losses


if __name__ == "__main__":
    main()
