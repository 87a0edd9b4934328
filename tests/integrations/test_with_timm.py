"""timm: the calls of its training script, with mixing that stops when it is told, whatever the workers have done."""

import pytest
import torch
from timm.data.loader import PrefetchLoader
from torch.utils.data import DataLoader, TensorDataset

from mixcollate import DeviceLoader, MixupCollate


@pytest.mark.parametrize("workers", ["0", "1"])
def test_mixing_stops_at_the_epoch(example, workers):
    losses, soft = example["main"]("--epochs", "2", "--mixup-off-epoch", "1", "--workers", workers, "--smoothing", "0")
    assert soft[0] > 0.3 and soft[1] == 0
    assert losses[1] < 3


def test_timms_own_prefetcher_takes_the_collate_too():
    """It unpacks, so mixing happens on the host, and it normalises, so the collate must not."""
    data = TensorDataset(torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8))
    loader = PrefetchLoader(
        DataLoader(data, 4, collate_fn=MixupCollate.from_timm(num_classes=10)), device=torch.device("cpu")
    )
    shapes = [(tuple(images.shape), images.dtype, tuple(targets.shape)) for images, targets in loader]
    assert shapes == [((4, 3, 8, 8), torch.float32, (4, 10))] * 2
    assert not loader.mixup_enabled  # it knows FastCollateMixup alone: DeviceLoader passes the switch on


@pytest.mark.parametrize("options", [{"mean": 0.5, "std": 0.25}, {"dtype": torch.float32}, {}], ids=str)
def test_its_prefetcher_is_refused_around_images_that_are_normalised_already(options):
    """It would divide by 255 again: images between -2.15 and -1.76, which train in silence."""
    data = TensorDataset(torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8))
    collate = MixupCollate.from_timm(num_classes=10, **options)
    for one in (collate, collate.plain()):
        loader = PrefetchLoader(DataLoader(data, 4, collate_fn=one), device=torch.device("cpu"))
        assert len(DeviceLoader(loader.loader, "cpu")) == 2
        if options:
            with pytest.raises(ValueError, match=r"got a PrefetchLoader .*: write DeviceLoader\(loader.loader\)"):
                DeviceLoader(loader, "cpu")
        else:
            images, _ = next(iter(DeviceLoader(loader, "cpu")))
            assert images.min() < -1 and images.max() > 1
