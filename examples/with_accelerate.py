"""Hugging Face Accelerate: ``accelerate launch examples/with_accelerate.py``. It moves batches, which mixes them."""

from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from mixcollate import MixupCollate, soft_cross_entropy

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
data = TensorDataset(images, torch.from_numpy(digits.target).long())


def main(epochs: int = 6, folder: Path | None = None, stop_at: int | None = None, resume: bool = False) -> list[float]:
    """Train and return the losses; save the state after ``stop_at`` batches of the first epoch, and stop."""
    # the order of an epoch depends only on the seed and the epoch
    order = DataLoaderConfiguration(use_seedable_sampler=True)
    accelerator = Accelerator(gradient_accumulation_steps=2, dataloader_config=order)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    collate = MixupCollate(num_classes=10, mean=0.31, std=0.38, seed=0)
    shuffled = DataLoader(Subset(data, range(898)), 64, shuffle=True, collate_fn=collate)
    plain = DataLoader(Subset(data, range(898, 1797)), 64, collate_fn=collate.plain())
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model, optimizer, shuffled, plain = accelerator.prepare(model, optimizer, shuffled, plain)
    accelerator.register_for_checkpointing(collate)  # its position in the stream of plans
    losses, skipped = [], 0
    if resume:
        accelerator.load_state(folder)
        skipped = stop_at or 0
    for epoch in range(epochs):
        shuffled.set_epoch(epoch)
        collate.set_epoch(epoch)
        collate.enabled = epoch < epochs - 1  # the last one on plain images
        batches = accelerator.skip_first_batches(shuffled, skipped) if skipped else shuffled
        for done, (inputs, targets) in enumerate(batches, start=skipped + 1):
            with accelerator.accumulate(model):
                loss = soft_cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
            if not resume and done == stop_at:
                accelerator.save_state(folder)
                return losses
        skipped = 0
    correct = sum(accelerator.gather_for_metrics(model(x).argmax(1) == y).sum().item() for x, y in plain)
    accelerator.print(f"accuracy {correct / 899:.1%}")
    accelerator.end_training()
    return losses


if __name__ == "__main__":
    main()
