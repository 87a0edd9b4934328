"""Lightning: the collate in a DataModule. Batches are mixed when Lightning moves them; validation is plain."""

from typing import Any

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader  # can resume within an epoch

from mixcollate import CutMix, MixUp, MixupCollate, RandomChoice, soft_cross_entropy
from mixcollate.integrations.lightning import MixupCallback


class Digits(pl.LightningDataModule):
    """scikit-learn's digits of 8x8 pixels as uint8, mixed except for validation."""

    def __init__(self, collate: MixupCollate) -> None:
        super().__init__()
        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
        self.data, self.collate = TensorDataset(images, torch.from_numpy(digits.target).long()), collate

    def train_dataloader(self) -> Any:
        return StatefulDataLoader(Subset(self.data, range(898)), batch_size=64, shuffle=True, collate_fn=self.collate)

    def val_dataloader(self) -> Any:
        return StatefulDataLoader(Subset(self.data, range(898, 1797)), batch_size=256, collate_fn=self.collate.plain())


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: Any, _: int) -> Tensor:
        images, targets = batch
        return soft_cross_entropy(self.net(images), targets)

    def validation_step(self, batch: Any, _: int) -> None:
        images, labels = batch
        self.log("accuracy", (self.net(images).argmax(1) == labels).float().mean(), batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def main(**trainer: Any) -> pl.Trainer:
    """Train for eight epochs, the last two on plain images."""
    pl.seed_everything(0, verbose=False)
    collate = MixupCollate(RandomChoice([MixUp(), CutMix()]), num_classes=10, mean=0.31, std=0.38, seed=0)
    trainer = pl.Trainer(**{"max_epochs": 8, "callbacks": [MixupCallback(collate, off_epochs=2)], **trainer})
    trainer.fit(Classifier(), Digits(collate))
    print(f"accuracy {trainer.callback_metrics['accuracy']:.1%}")
    return trainer


if __name__ == "__main__":
    main()
