"""torchrun and DistributedDataParallel: ``torchrun --nproc-per-node 2 examples/ddp.py``, on gloo without a GPU."""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from mixcollate import DeviceLoader, MixupCollate, soft_cross_entropy

digits = load_digits()
images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
data = TensorDataset(images, torch.from_numpy(digits.target).long())


def main(epochs: int = 2, workers: int = 0) -> list[float]:
    """Train with one seed for all ranks, which still draw different plans; return the losses of this rank."""
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    collate = MixupCollate(num_classes=10, mean=0.31, std=0.38, seed=0)
    sampler = DistributedSampler(data, seed=0)
    loader = DeviceLoader(DataLoader(data, 64, sampler=sampler, num_workers=workers, collate_fn=collate), device)
    losses = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)  # of the sampler and the collate
        for inputs, targets in loader:
            loss = soft_cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"rank {rank}, epoch {epoch + 1}: loss {losses[-1]:.6f}, plans drawn {collate.state_dict()['step']}")
    dist.destroy_process_group()
    return losses


if __name__ == "__main__":
    import sys

    main(workers=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
