"""The main use: a plain training loop that mixes on the device, with MixupCollate as its collate_fn."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mixcollate import CutMix, MixUp, MixupCollate, RandomChoice, soft_cross_entropy

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
labels = torch.from_numpy(digits.target).long()
train, test = slice(None, 898), slice(898, None)  # the second half is by other writers


def main(epochs: int = 10, device: str = "cuda" if torch.cuda.is_available() else "cpu") -> float:
    """Train on mixed images and return the test accuracy on plain ones."""
    torch.manual_seed(0)
    collate = MixupCollate(RandomChoice([MixUp(), CutMix()]), num_classes=10, mean=0.31, std=0.38)
    loader = DataLoader(TensorDataset(images[train], labels[train]), batch_size=64, shuffle=True, collate_fn=collate)
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 10)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    for epoch in range(epochs):
        model.train()
        for batch in loader:
            inputs, targets = batch.to(device)  # copied as uint8, mixed and normalised there
            loss = soft_cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: last loss {loss.item():.3f}")

    model.eval()
    with torch.no_grad():
        predicted = model(((images[test] / 255 - 0.31) / 0.38).to(device)).argmax(1).cpu()
    accuracy = (predicted == labels[test]).float().mean().item()
    print(f"test accuracy {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
