"""Hugging Face Trainer with ``datasets``: soft cross-entropy, plain evaluation and final epoch, exact resuming."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sklearn.datasets import load_digits
from transformers import ConvNextConfig, ConvNextForImageClassification, TrainingArguments

from mixcollate import CutMix, MixUp, MixupCollate, RandomChoice
from mixcollate.integrations.transformers import MixupTrainer

digits = load_digits()
pixels = (digits.images * (255 / 16)).round().astype("uint8")[:, None]  # [1797, 1, 8, 8]
data = Dataset.from_dict({"pixel_values": list(pixels), "labels": digits.target.tolist()})
# arrays arrive as int64 without a dtype; without columns= it would be the labels', too, which wrap around above 255
data = data.with_format("torch", columns=["pixel_values"], dtype=torch.uint8, output_all_columns=True)


def accuracy(prediction: Any) -> dict[str, float]:
    """The accuracy in a plain evaluation, whose labels are class indices."""
    return {"accuracy": float(np.mean(prediction.predictions.argmax(1) == prediction.label_ids))}


def main(output: str = "digits", resume: bool = False, **options: Any) -> MixupTrainer:
    """Train a tiny ConvNeXt and evaluate it."""
    torch.manual_seed(0)
    size = {"num_channels": 1, "patch_size": 2, "num_stages": 1, "hidden_sizes": [64], "depths": [2]}
    model = ConvNextForImageClassification(ConvNextConfig(num_labels=10, layer_scale_init_value=1.0, **size))
    collate = MixupCollate(RandomChoice([MixUp(), CutMix()]), num_classes=10, mean=0.31, std=0.38, seed=0)
    arguments = TrainingArguments(
        output,
        **{"num_train_epochs": 8, "per_device_train_batch_size": 64, "learning_rate": 3e-3, "seed": 0, **options},
    )
    trainer = MixupTrainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=data.select(range(898)),
        eval_dataset=data.select(range(898, 1797)),
        compute_metrics=accuracy,
        off_epochs=1,
    )
    trainer.train(resume_from_checkpoint=resume)
    print(trainer.evaluate())
    return trainer


if __name__ == "__main__":
    main()
