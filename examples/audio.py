"""Audio: MixUp of waveforms ``[B, 1, T]``, then CutMix and erasing of spectrograms ``[B, 1, F, T]``."""

import math

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mixcollate import Compose, CutMix, MixUp, MixupCollate, RandomErasing, soft_cross_entropy

generator = torch.Generator().manual_seed(0)
time = torch.arange(4096) / 8000
labels = torch.arange(256) % 4
pitch = 220 * 2 ** (labels / 4 + 0.05 * torch.randn(256, generator=generator))  # four notes, not well tuned
waves = torch.sin(2 * math.pi * pitch[:, None] * time + torch.rand(256, 1, generator=generator) * 2 * math.pi)
waves = (waves + 0.3 * torch.randn(waves.shape, generator=generator))[:, None]  # [256, 1, 4096]


def spectrogram(wave: Tensor) -> Tensor:
    """``[N, 1, T]`` to ``[N, 65, 129]``: the logarithm of the power at each frequency and time."""
    return torch.stft(wave.flatten(0, -2), 128, window=torch.hann_window(128), return_complex=True).abs().log1p()


def main(epochs: int = 20) -> tuple[float, Tensor, Tensor]:
    """Train on mixed waves and spectrograms; return the accuracy, and the spectrograms and targets of one batch."""
    torch.manual_seed(0)
    loader = DataLoader(
        TensorDataset(waves, labels), 64, shuffle=True, collate_fn=MixupCollate(MixUp(alpha=0.4), num_classes=4, seed=0)
    )
    holes = Compose([CutMix(p=0.3), RandomErasing(p=0.25)], num_classes=4, seed=1)  # accepts soft labels
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 4))
    net(spectrogram(waves[:1])[:, None])
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    pictures, targets = waves, labels
    for _ in range(epochs):
        for mixed, soft in loader:
            pictures, targets = holes(spectrogram(mixed)[:, None], soft)
            loss = soft_cross_entropy(net(pictures), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    accuracy = (net(spectrogram(waves)[:, None]).argmax(1) == labels).float().mean().item()
    print(f"accuracy {accuracy:.1%}")
    return accuracy, pictures, targets


if __name__ == "__main__":
    main()
