"""The official algorithms of methods that the peers do not have, written from the definitions in their papers.

They work like the authors' code: RICAP with one draw for each batch; the others image by image, on the host if the
authors do so.
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
