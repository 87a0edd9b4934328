"""torchdata: stop within an epoch, resume in another process, and get the same batches, bit for bit."""

from typing import Any

import torch
import torchdata.nodes as nodes
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import RandomSampler, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from mixcollate import DeviceLoader, MixupCollate

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
data = TensorDataset(images, torch.from_numpy(digits.target).long())


def stateful(workers: int) -> DeviceLoader:
    """A StatefulDataLoader, which must resume with the same number of workers."""
    torch.manual_seed(0)
    collate = MixupCollate(num_classes=10, mean=0.31, std=0.38, seed=0)
    return DeviceLoader(StatefulDataLoader(data, 128, shuffle=True, num_workers=workers, collate_fn=collate), "cpu")


def from_nodes(workers: int) -> DeviceLoader:
    """The same with torchdata's nodes, for any number of workers; the collate is mapped over the batches."""
    generator = torch.Generator().manual_seed(0)
    collate = MixupCollate(num_classes=10, mean=0.31, std=0.38, seed=0)
    node = nodes.MapStyleWrapper(data, RandomSampler(data, generator=generator))
    node = nodes.Batcher(node, 128, drop_last=False)
    node = nodes.ParallelMapper(node, collate, num_workers=max(workers, 1))
    return DeviceLoader(nodes.Loader(node), "cpu")


def main(
    make: Any = stateful, stop_at: int = 5, workers: tuple[int, int] = (2, 2)
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the targets of a whole epoch, and of one that was stopped and resumed with another loader."""
    whole = [targets for _, targets in make(workers[0])]
    loader, parts = make(workers[0]), []
    for _, targets in loader:
        parts.append(targets)
        if len(parts) == stop_at:
            break
    state = loader.state_dict()
    again = make(workers[1])
    again.load_state_dict(state)
    parts += [targets for _, targets in again]
    print(f"{make.__name__}: {len(whole)} batches, the same after the restart:", all(map(torch.equal, whole, parts)))
    return whole, parts


if __name__ == "__main__":
    main()
    main(from_nodes, workers=(1, 3))
