"""Multi-label training: rows of zeros and ones are blended, and trained with binary cross-entropy."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mixcollate import MixUp, MixupCollate, soft_binary_cross_entropy

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
digit = torch.from_numpy(digits.target).long()
rows = torch.stack(
    [digit % 2 == 0, digit > 4, digit % 3 == 0, torch.isin(digit, torch.tensor([0, 6, 8, 9]))], 1
).float()
rows[::10, 3] = torch.nan  # these labels are missing: the loss ignores them


def main(epochs: int = 10) -> tuple[float, Tensor]:
    """Train; return the mean accuracy over the labels, and the targets of one mixed batch."""
    torch.manual_seed(0)
    collate = MixupCollate(MixUp(alpha=0.4), mean=0.31, std=0.38, seed=0)  # num_classes is the rows' length
    loader = DataLoader(TensorDataset(images[:898], rows[:898]), 64, shuffle=True, drop_last=True, collate_fn=collate)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 4))
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    targets = torch.empty(0)
    for _ in range(epochs):
        for inputs, targets in loader:
            loss = soft_binary_cross_entropy(net(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ((inputs, wanted),) = DataLoader(TensorDataset(images[898:], rows[898:]), 899, collate_fn=collate.plain())
    known = ~wanted.isnan()
    accuracy = ((net(inputs) > 0) == (wanted > 0))[known].float().mean().item()
    print(f"accuracy {accuracy:.1%} of the labels")
    return accuracy, targets


if __name__ == "__main__":
    main()
