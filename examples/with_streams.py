"""Hugging Face's streaming datasets, and loaders of whole batches (``batch_size=None``, ``__getitems__``)."""

import numpy as np
import torch
from datasets import Dataset
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from torch.utils.data import Dataset as TorchDataset

from mixcollate import MixupCollate

digits = load_digits()
pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # [1797, 1, 8, 8]
options = {"num_classes": 10, "mean": 0.31, "std": 0.38, "seed": 0}


def from_hugging_face() -> list[dict[str, Tensor]]:
    """An iterable dataset of dicts; the batches are dicts, too."""
    data = Dataset.from_dict({"image": list(pixels[:256]), "label": digits.target[:256].tolist()})
    stream = data.to_iterable_dataset(num_shards=4).shuffle(seed=0, buffer_size=64).with_format("numpy")
    loader = DataLoader(stream, 64, num_workers=2, collate_fn=MixupCollate(**options, collate_fn=stacked))
    return [dict(batch.items()) for batch in loader]


def stacked(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Stack samples of this stream, whose pixels arrive as int64."""
    return {
        "image": torch.from_numpy(np.stack([sample["image"] for sample in samples]).astype(np.uint8)),
        "label": torch.from_numpy(np.stack([sample["label"] for sample in samples]).astype(np.int64)),
    }


class InBatches(TorchDataset):
    """Returns a whole batch at once: from ``__getitems__``, or for a list of indices with ``batch_size=None``."""

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(pixels[indices]), torch.from_numpy(digits.target[indices])

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        return list(zip(*self[indices], strict=True))


def from_whole_batches() -> list[tuple[Tensor, Tensor]]:
    """The same batches, once from each kind of loader."""
    sampler = BatchSampler(SequentialSampler(range(256)), 64, drop_last=False)
    whole = DataLoader(InBatches(), batch_size=None, sampler=sampler, collate_fn=MixupCollate(**options))
    items = DataLoader(InBatches(), batch_sampler=sampler, collate_fn=MixupCollate(**options))
    return [batch.mix() for loader in (whole, items) for batch in loader]


if __name__ == "__main__":
    print("Hugging Face:", [tuple(batch["label"].shape) for batch in from_hugging_face()])
    print("batches:", [tuple(targets.shape) for _, targets in from_whole_batches()])
