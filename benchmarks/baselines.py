"""The official algorithms of methods that the peers do not have, written from the definitions in their papers.

They work like the authors' code: RICAP, ResizeMix and FMix with one draw for each batch; the others image by image, on
the host if the authors do so.
"""

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def ricap(images: Tensor, labels: Tensor, num_classes: int, beta: float = 0.3) -> tuple[Tensor, Tensor]:
    """Four crops around one random point (https://arxiv.org/abs/1811.09030, Algorithm 1); dense targets."""
    height, width = images.shape[2:]
    row, col = (round(length * np.random.beta(beta, beta)) for length in (height, width))
    sizes = [(row, col), (row, width - col), (height - row, col), (height - row, width - col)]
    crops, target = [], torch.zeros(len(images), num_classes, device=images.device)
    for rows, cols in sizes:
        index = torch.randperm(len(images), device=images.device)
        top, left = np.random.randint(height - rows + 1), np.random.randint(width - cols + 1)
        crops.append(images[index][:, :, top : top + rows, left : left + cols])
        target += functional.one_hot(labels[index], num_classes) * (rows * cols / (height * width))
    upper, lower = torch.cat(crops[:2], 3), torch.cat(crops[2:], 3)
    return torch.cat([upper, lower], 2), target


def mosaic(images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """A quadrant of each of four images around a random centre, image by image; dense targets."""
    batch, _, height, width = images.shape
    out = torch.empty_like(images)
    rows = functional.one_hot(labels, num_classes).float()
    target = torch.zeros(batch, num_classes, device=images.device)
    for i in range(batch):
        row, col = (int(length * random.uniform(0.2, 0.8)) for length in (height, width))
        quadrants = [(0, row, 0, col), (0, row, col, width), (row, height, 0, col), (row, height, col, width)]
        for k, (top, bottom, left, right) in enumerate(quadrants):
            j = i if k == 0 else random.randrange(batch)
            out[i, :, top:bottom, left:right] = images[j, :, top:bottom, left:right]
            target[i] += rows[j] * ((bottom - top) * (right - left) / (height * width))
    return out, target


def resizemix(images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Whole images, resized, in a box of others (https://arxiv.org/abs/2012.11101); dense targets."""
    height, width = images.shape[2:]
    scale = np.random.uniform(0.1, 0.8)
    rows, cols = int(height * scale), int(width * scale)
    top, left = np.random.randint(height - rows + 1), np.random.randint(width - cols + 1)
    index = torch.randperm(len(images), device=images.device)
    out = images.clone()
    patch = functional.interpolate(images[index], (rows, cols), mode="bilinear")
    out[:, :, top : top + rows, left : left + cols] = patch
    return out, _blended(labels, index, 1 - rows * cols / (height * width), num_classes)


def fmix(images: Tensor, labels: Tensor, num_classes: int, decay: float = 3) -> tuple[Tensor, Tensor]:
    """A mask cut from noise of low frequencies (https://arxiv.org/abs/2002.12047), made on the host; dense targets."""
    height, width = images.shape[2:]
    own = np.random.beta(1, 1)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    strength = 1 / np.maximum(np.hypot(down, across), 1 / max(height, width)) ** decay
    spectrum = np.random.randn(2, *strength.shape) * strength
    grey = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], (height, width)).ravel()
    kept = np.zeros(grey.size, np.float32)
    kept[np.argsort(-grey)[: round(own * grey.size)]] = 1
    mask = torch.from_numpy(kept.reshape(height, width)).to(images.device)
    index = torch.randperm(len(images), device=images.device)
    return mask * images + (1 - mask) * images[index], _blended(labels, index, own, num_classes)


def _blended(labels: Tensor, index: Tensor, own: float, num_classes: int) -> Tensor:
    rows = functional.one_hot(labels, num_classes).float()
    return own * rows + (1 - own) * rows[index]


def cutout(images: Tensor, length: int) -> Tensor:
    """A square of zeros around a random centre (https://arxiv.org/abs/1708.04552); masks are made on the host."""
    height, width = images.shape[2:]
    out = torch.empty_like(images)
    for i, image in enumerate(images):
        row, col = np.random.randint(height), np.random.randint(width)
        mask = np.ones((height, width), np.float32)
        mask[max(row - length // 2, 0) : row + length // 2, max(col - length // 2, 0) : col + length // 2] = 0
        out[i] = image * torch.from_numpy(mask).to(image.device).expand_as(image)
    return out


def gridmask(images: Tensor, ratio: float = 0.6, p: float = 0.8) -> Tensor:
    """A turned grid of holes (https://arxiv.org/abs/2001.04086); masks are made on the host and rotated by PIL."""
    height, width = images.shape[2:]
    shorter = min(height, width)
    out = images.clone()
    for i in range(len(images)):
        if np.random.rand() > p:
            continue
        tile = np.random.randint(max(round(shorter * 96 / 224), 2), max(shorter, 3))
        kept = min(max(int(tile * ratio + 0.5), 1), tile - 1)
        canvas = (int(1.5 * height), int(1.5 * width))
        mask = np.ones(canvas, np.uint8)
        down, across = np.random.randint(tile), np.random.randint(tile)
        for start in range(down, canvas[0], tile):
            mask[start : start + kept] = 0
        for start in range(across, canvas[1], tile):
            mask[:, start : start + kept] = 0
        turned = np.asarray(Image.fromarray(mask).rotate(np.random.randint(360)))
        top, left = (canvas[0] - height) // 2, (canvas[1] - width) // 2
        hole = torch.from_numpy(turned[top : top + height, left : left + width].astype(np.float32))
        out[i] *= (1 - hole).to(images.device)
    return out


def hide_and_seek(images: Tensor, hide: float = 0.5) -> Tensor:
    """Random cells of a grid are hidden (https://arxiv.org/abs/1811.02545): a loop over cells of each image."""
    height, width = images.shape[2:]
    out = images.clone()
    for image in out:
        side = round(random.choice((0, 16, 32, 44, 56)) * min(height, width) / 224)
        for top in range(0, height, side) if side else ():
            for left in range(0, width, side):
                if random.random() <= hide:
                    image[:, top : top + side, left : left + side] = 0
    return out
