"""Segmentation: CutMix pastes the same box into images and masks, which remain class indices."""

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2.functional import resize

from mixcollate import CutMix, MixupCollate

pictures = torch.stack([torch.tensor(picture) for picture in load_sample_images().images]).permute(0, 3, 1, 2)
small = resize(pictures, [64, 96]).contiguous()  # [2, 3, 64, 96] uint8: a temple and a flower
crops = torch.cat([small[:, :, y : y + 32, x : x + 48] for y in (0, 16, 32) for x in (0, 16, 32, 48)])
brightness = crops.float().mean(1)  # [24, 32, 48]
masks = (brightness > 85).long() + (brightness > 150).long()  # dark, grey, bright
masks[:, :2] = 255  # pixels without a label


def main(steps: int = 40) -> tuple[float, Tensor]:
    """Train a small network; return the accuracy on plain images, and the masks of one mixed batch."""
    torch.manual_seed(0)
    collate = MixupCollate(CutMix(), mask_keys=1, mean=0.5, std=0.25, seed=0)
    loader = DataLoader(TensorDataset(crops, masks), 8, shuffle=True, collate_fn=collate)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    mixed = torch.empty(0)
    for _ in range(steps // len(loader)):
        for images, mixed in loader:
            loss = criterion(net(images), mixed)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ((images, labels),) = DataLoader(TensorDataset(crops, masks), 24, collate_fn=collate.plain())
    known = labels != 255
    accuracy = (net(images).argmax(1) == labels)[known].float().mean().item()
    print(f"accuracy {accuracy:.1%} of the pixels")
    return accuracy, mixed


if __name__ == "__main__":
    main()
