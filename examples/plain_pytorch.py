"""Plain PyTorch: bf16, torch.compile, accumulation, EMA, plain final epochs and evaluation, exact resuming."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset, TensorDataset

from mixcollate import CutMix, DeviceLoader, MixUp, MixupCollate, RandomChoice, soft_cross_entropy

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
data = TensorDataset(images, torch.from_numpy(digits.target).long())
train, test = Subset(data, range(898)), Subset(data, range(898, 1797))  # the second half is by other writers


def main(epochs: int = 8, checkpoint: Path | None = None, stop_at: int = 0, compiled: bool = True) -> tuple | None:
    """Train, from the checkpoint if it exists; return accuracy and EMA. Stop after ``stop_at`` (even) batches."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    collate = MixupCollate(RandomChoice([MixUp(), CutMix()]), num_classes=10, mean=0.31, std=0.38, seed=0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    parts = {"model": model, "ema": ema, "optimizer": optimizer, "collate": collate}
    saved = torch.load(checkpoint, weights_only=True) if checkpoint and checkpoint.exists() else {"batches": 0}
    start, per_epoch = saved.pop("batches"), len(train) // 64  # batches, over all epochs and in one
    for name, state in saved.items():
        parts[name].load_state_dict(state)
    step = torch.compile(model, disable=not compiled)
    for epoch in range(start // per_epoch, epochs):
        collate.set_epoch(epoch)
        collate.enabled = epoch < epochs - 2  # the last two on plain images
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch)).tolist()
        skipped = start % per_epoch if epoch == start // per_epoch else 0
        loader = DataLoader(train, 64, sampler=order[64 * skipped : 64 * per_epoch], collate_fn=collate)
        for batch, (inputs, targets) in enumerate(DeviceLoader(loader, device), start=epoch * per_epoch + skipped):
            with torch.autocast(device, torch.bfloat16):
                loss = soft_cross_entropy(step(inputs), targets) / 2
            loss.backward()
            if batch % 2 == 1:  # accumulates two batches
                optimizer.step()
                optimizer.zero_grad()
                ema.update_parameters(model)
            if batch + 1 == stop_at:
                states = {name: part.state_dict() for name, part in parts.items()}
                torch.save({"batches": stop_at, **states}, checkpoint)
                return None

    evaluation = DeviceLoader(DataLoader(test, 256, collate_fn=collate.plain()), device)  # no mixing
    with torch.no_grad():
        correct = sum((ema(inputs).argmax(1) == labels).sum().item() for inputs, labels in evaluation)
    print(f"test accuracy {correct / len(test):.1%}")
    return correct / len(test), ema


if __name__ == "__main__":
    main()
