"""mixup as in articles, and with this library: the same images, loss and gradients."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mixcollate import MixUp, soft_cross_entropy

digits = load_digits()
images = torch.from_numpy(digits.images / 16).float()[:, None]  # [1797, 1, 8, 8] in [0, 1]
labels = torch.from_numpy(digits.target).long()
mixup = MixUp(alpha=1.0, per="batch", pairing="shuffle", targets="sparse")


def before(model: nn.Module, x: Tensor, y: Tensor, lam: float, index: Tensor) -> Tensor:
    """The article's step: one ``lam`` from Beta(alpha, alpha) and one random permutation per batch."""
    mixed = lam * x + (1 - lam) * x[index]
    y_a, y_b = y, y[index]
    out = model(mixed)
    return lam * cross_entropy(out, y_a) + (1 - lam) * cross_entropy(out, y_b)


def after(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The same with mixcollate, which draws ``lam`` and the permutation itself."""
    mixed, target = mixup(x, y)
    return soft_cross_entropy(model(mixed), target)


def main() -> list[tuple[Tensor, Tensor]]:
    """Return the losses and gradients of both on some batches, with the same draws."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    compared = []
    for x, y in zip(images.split(256), labels.split(256), strict=True):
        state = torch.get_rng_state()
        plan = mixup.make_plan(x)  # the same draw that `after` will make
        torch.set_rng_state(state)
        lam, index = float(plan.own_share[0]), torch.from_numpy(plan.partner)
        for loss in (before(model, x, y, lam, index), after(model, x, y)):
            gradient = torch.autograd.grad(loss, model[1].weight)[0]
            compared.append((loss.detach(), gradient))
        (theirs, _), (ours, _) = compared[-2:]
        print(f"lam {lam:.3f}: lam * CE(a) + (1 - lam) * CE(b) = {theirs:.6f}, soft_cross_entropy = {ours:.6f}")
    return compared


if __name__ == "__main__":
    main()
