"""Accelerate: exact resume, and which arrangements of two processes work."""

from unittest.mock import MagicMock

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from mixcollate import DeviceLoader, MixupCollate
from tests.integrations.processes import run_in_two


def test_it_learns_and_resumes_exactly(example, tmp_path):
    run = example["main"]
    whole = run(epochs=2)
    assert run(epochs=2, folder=tmp_path, stop_at=6) == whole[:6]
    assert run(epochs=2, folder=tmp_path, stop_at=6, resume=True) == whole[6:]
    assert whole[-1] < whole[0]


def test_the_batch_size_that_fits_is_found(example):
    from accelerate.utils import find_executable_batch_size

    collate, tried = MixupCollate(num_classes=10, seed=0), []

    @find_executable_batch_size(starting_batch_size=64)
    def train(batch_size):
        tried.append(batch_size)
        images, targets = next(iter(DataLoader(example["data"], batch_size, collate_fn=collate)))
        if batch_size > 16:
            raise RuntimeError("CUDA out of memory.")
        return images, targets

    _, targets = train()
    assert tried[0] == 64 and targets.shape == (tried[-1], 10) and tried[-1] <= 16


@pytest.mark.parametrize(
    "wrap",
    [lambda loader: loader, lambda loader: ahead_of(loader), lambda loader: ahead_of(tqdm(loader, disable=True))],
    ids=["Accelerate's", "ours", "ours of a progress bar"],
)
def test_the_last_batch_is_known_while_it_is_in_use(wrap):
    """On it gradients are synchronised however many there are, and what only fills it up is no result."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    data = TensorDataset(torch.rand(19, 3, 4, 4), torch.arange(19))
    model = accelerator.prepare(torch.nn.Flatten())
    loader = accelerator.prepare(DataLoader(data, 4, collate_fn=MixupCollate(num_classes=19).plain()))
    for _ in range(2):
        synchronised, labels = [], []
        for images, own in wrap(loader):
            with accelerator.accumulate(model):
                model(images)
                synchronised.append(accelerator.sync_gradients)
            labels += accelerator.gather_for_metrics(own).tolist()
        assert synchronised == [False, True, False, True, True] and labels == list(range(19))


def ahead_of(loader):
    """What ``DeviceLoader`` does on a GPU, with streams that do nothing."""
    device_loader = DeviceLoader(loader, "cpu")
    device_loader._streams = MagicMock()
    return device_loader._prefetched()


TWO = """
import os, runpy, sys, torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader
from mixcollate import DeviceLoader, MixupCollate

example = runpy.run_path(sys.argv[1])
data, kind = torch.utils.data.Subset(example["data"], range(256)), sys.argv[3]
options = {"dispatch_batches": "dispatch" in kind, "split_batches": "split" in kind}
accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))
collate = MixupCollate(num_classes=10, mean=0.31, std=0.38, seed=0, eager="eager" in kind)
loader = accelerator.prepare(DataLoader(data, 32, collate_fn=collate))
if "ahead" in kind:
    loader = DeviceLoader(loader, "cpu")
    assert loader.state_dict() == {"collate": {"seed": 0, "step": 0}}
torch.save([targets for _, targets in loader], sys.argv[2] + os.environ["RANK"])
"""


@pytest.mark.parametrize(
    "kind, batches", [("shard ahead", [32] * 4), ("split", [16] * 8), ("dispatch eager", [32] * 4), ("dispatch", None)]
)
def test_two_processes(kind, batches, tmp_path):
    if batches is None:  # the first process deals out parts of what it reads, which must be tensors: eager=True
        with pytest.raises(AssertionError, match="Can only concatenate tensors but got .*MixBatch"):
            run_in_two(TWO, "with_accelerate", tmp_path, kind)
        return
    first, second = run_in_two(TWO, "with_accelerate", tmp_path, kind)
    assert [len(targets) for targets in first] == [len(targets) for targets in second] == batches
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(((targets > 0) & (targets < 1)).any() for targets in first + second)
