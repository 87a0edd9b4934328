"""How sure a network is and how often it is right: reliability, calibration error, and a temperature that mends it."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

BINS = 15
"""Of equal width in the confidence, as in Guo et al. 2017 (https://arxiv.org/abs/1706.04599)."""


def reliability(probabilities: Tensor, labels: Tensor) -> Tensor:
    """``[BINS, 3]`` float64: the predictions whose confidence lies there, its mean, the share that is right."""
    confidence, predicted = probabilities.double().max(1)
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    right = (predicted == labels).double()
    count, sure, correct = (
        torch.bincount(which, weight, BINS) for weight in (torch.ones_like(right), confidence, right)
    )
    return torch.stack([count, sure / count.clamp(min=1), correct / count.clamp(min=1)], 1)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """How far confidence is from accuracy, on average over the predictions, bin by bin."""
    count, confidence, accuracy = reliability(probabilities, labels).T
    return float((count * (confidence - accuracy).abs()).sum() / len(labels))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """What to divide ``logits`` by so that the cross entropy with ``labels`` is least."""
    from scipy.optimize import minimize_scalar

    def loss(exponent: float) -> float:
        return float(cross_entropy(logits.double() / np.exp(exponent), labels))

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded")  # type: ignore[no-untyped-call]
    return float(np.exp(found.x))


def tempered(logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Logits over the temperature that was fitted on the other half of the images; and the two halves' mean one.

    So no image has a say in its own temperature. The halves are every second image.
    """
    result, temperatures = torch.empty_like(logits), []
    for half in (0, 1):
        temperatures.append(fit_temperature(logits[1 - half :: 2], labels[1 - half :: 2]))
        result[half::2] = logits[half::2] / temperatures[-1]
    return result, sum(temperatures) / 2
