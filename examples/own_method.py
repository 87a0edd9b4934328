"""A custom method, made with the public API: GridMix, which shows the partner in the holes of a grid."""

import numpy as np
import torch

from mixcollate import Draw, MixPlan, MixTransform


class GridMix(MixTransform):
    """Show the partner in a regular grid of holes, whose share of the area is about 1 - Beta(alpha, alpha)."""

    def __init__(self, *, alpha: float = 0.2, holes: tuple[int, int] = (2, 6), **options):
        super().__init__(**options)  # p, per, pairing, num_classes, ...: help(GridMix) shows them, too
        self.alpha, self.holes = alpha, holes

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)  # number of draws, and the draw of each image
        side = np.sqrt(1 - draw.numbers.beta(self.alpha, self.alpha, (count, 1)))
        holes = draw.numbers.integers(*self.holes, size=(count, 1), endpoint=True)
        crossed = []  # [count, H] and [count, W]: whether a row (a column) crosses holes
        for length in draw.size:
            patch = np.maximum(length // holes, 2)
            hole = np.clip(np.rint(side * patch), 1, patch - 1)
            crossed.append((np.arange(length) + draw.numbers.integers(patch)) % patch < hole)
        inside = crossed[0][:, :, None] & crossed[1][:, None, :]  # [count, H, W]
        bitmap = np.packbits(inside, axis=2, bitorder="little")[unit]
        theirs = inside.mean((1, 2), dtype=np.float32)[unit]  # the share of the partner's label, counted in pixels
        parts = {"box": np.tile(np.array([0, 0, *draw.size], np.int32), (len(theirs), 1)), "bitmap": bitmap}
        parts |= {"own_outside": np.ones_like(theirs), "own_inside": np.zeros_like(theirs)}
        return MixPlan(size=draw.size, partners=draw.partner, shares=np.stack([1 - theirs, theirs], 1), **parts)


def main() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.eye(8)[:, :, None, None].expand(8, 8, 24, 30)  # image k is all colour k
    return GridMix(num_classes=8, seed=0)(images, torch.arange(8))


if __name__ == "__main__":
    print(main()[1])
