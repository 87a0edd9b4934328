"""The README's Python runs, block after block, as a reader would paste it."""

import re
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset, default_collate

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_readmes_code_runs():
    images, labels = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 10, (64,))
    reader = {
        "dataset": TensorDataset(images, labels),
        "model": lambda x: x.float().flatten(1) @ weights,
        "device": "cpu",
        "epochs": 1,
        "torch": torch,
        "numpy": numpy,
        "F": F,
        "default_collate": default_collate,
    }
    weights = torch.randn(3 * 32 * 32, 10, requires_grad=True)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        reader |= {"images": images / 255, "labels": labels}
        exec(block.replace("num_workers=8, persistent_workers=True", "num_workers=0"), reader)
    assert weights.grad is not None and reader["targets"].shape == (64, 10)
    assert torch.equal(reader["first"][0], reader["again"][0])
