"""Ray, for those who use it already: Ray Data passes its batches to the collate, Ray Train runs the workers."""

from typing import Any

import numpy as np
import ray
import torch
from ray.train import ScalingConfig, report
from ray.train.torch import TorchTrainer, get_device, prepare_model
from sklearn.datasets import load_digits
from torch import nn

from mixcollate import MixupCollate, soft_cross_entropy

mixing = MixupCollate(num_classes=10, mean=0.31, std=0.38, seed=0)


def collate(batch: dict[str, np.ndarray]) -> Any:
    """Convert Ray's batch of arrays to one that is mixed when it is moved."""
    return mixing({"image": torch.as_tensor(batch["image"]), "label": torch.as_tensor(batch["label"])})


def train(options: dict[str, Any]) -> dict[str, float]:
    """Train on this worker's shard of the data."""
    torch.manual_seed(0)
    model = prepare_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    data = ray.train.get_dataset_shard("train")
    for epoch in range(options["epochs"]):
        mixing.set_epoch(epoch)
        for batch in data.iter_torch_batches(batch_size=64, collate_fn=collate):
            mixed = batch.to(get_device())
            loss = soft_cross_entropy(model(mixed["image"]), mixed["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        soft = (mixed["label"].max(1).values < 1).float().mean().item()
        figures = {"loss": loss.item(), "soft": soft, "plans": mixing.state_dict()["step"]}
        report(figures)
    return figures


def main(workers: int = 2, epochs: int = 2, **options: Any) -> Any:
    """Train on several workers; return the last figures."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # [1797, 1, 8, 8]
    rows = [{"image": image, "label": label} for image, label in zip(pixels[:512], digits.target[:512], strict=True)]
    data = ray.data.from_items(rows)
    scaling = ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available())
    trainer = TorchTrainer(
        train, train_loop_config={"epochs": epochs}, datasets={"train": data}, scaling_config=scaling, **options
    )
    figures = trainer.fit().return_value  # the first worker's
    print(figures)
    return figures


if __name__ == "__main__":
    main()
