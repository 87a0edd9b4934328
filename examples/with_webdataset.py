"""WebDataset: the collate makes the batches of a pipeline of shards."""

import tempfile
from pathlib import Path

import numpy as np
import webdataset
from sklearn.datasets import load_digits
from torch import Tensor

from mixcollate import MixupCollate

digits = load_digits()
pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # [1797, 1, 8, 8]
collate = MixupCollate(num_classes=10, mean=0.31, std=0.38, seed=0)


def main(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Write shards, then read, shuffle and batch them in a pipeline."""
    with webdataset.ShardWriter(str(folder / "digits-%02d.tar"), maxcount=200, verbose=0) as shards:
        for k, image in enumerate(pixels[:400]):
            shards.write({"__key__": f"{k:04}", "image.npy": image, "label.cls": int(digits.target[k])})
    data = webdataset.WebDataset(str(folder / "digits-{00..01}.tar"), shardshuffle=False).shuffle(100, seed=0)
    data = data.decode().to_tuple("image.npy", "label.cls").batched(64, collation_fn=collate)
    return [(images, targets) for images, targets in webdataset.WebLoader(data, batch_size=None, num_workers=1)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print([tuple(targets.shape) for _, targets in main(Path(temporary))])
