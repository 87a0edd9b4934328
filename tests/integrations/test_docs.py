"""The page on Ignite, fastai and others, with the real libraries."""

import re
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PAGE = Path(__file__).parent.parent.parent / "docs" / "clients" / "others.md"


def test_the_code_of_the_page_runs():
    torch.manual_seed(0)
    data = TensorDataset(torch.randint(0, 256, (256, 1, 8, 8), dtype=torch.uint8), torch.arange(256) % 10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    reader = {"data": data, "model": model, "optimizer": optimizer, "DataLoader": DataLoader, "torch": torch}
    before = model[1].weight.detach().clone()
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, reader)
    assert not torch.equal(before, model[1].weight)
    assert 0 <= reader["shares"].compute() <= 1 and 0 <= reader["accuracy"].compute() <= 1
    assert reader["images"].shape == (8, 3, 8, 8) and reader["targets"].shape == (8, 10)
