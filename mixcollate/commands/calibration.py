"""Calibration of a network: reliability, calibration error, and the temperature that corrects it."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

BINS = 15
"""Bins of confidence, of equal width, as in Guo et al. 2017 (https://arxiv.org/abs/1706.04599)."""


def reliability(probabilities: Tensor, labels: Tensor) -> Tensor:
    """``[BINS, 3]`` float64: for each bin, the number of predictions, their mean confidence, and their accuracy."""
    confidence, predicted = probabilities.double().max(1)
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    right = (predicted == labels).double()
    count, sure, correct = (
        torch.bincount(which, weight, BINS) for weight in (torch.ones_like(right), confidence, right)
    )
    return torch.stack([count, sure / count.clamp(min=1), correct / count.clamp(min=1)], 1)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """The expected calibration error: the mean difference of confidence and accuracy, weighted by the bins' counts."""
    count, confidence, accuracy = reliability(probabilities, labels).T
    return float((count * (confidence - accuracy).abs()).sum() / len(labels))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the cross-entropy of ``logits / temperature`` with ``labels``."""
    from scipy.optimize import minimize_scalar

    def loss(exponent: float) -> float:
        return float(cross_entropy(logits.double() / np.exp(exponent), labels))

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded")  # type: ignore[no-untyped-call]
    return float(np.exp(found.x))


def tempered(logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Logits divided by a temperature fitted on the other half of the images, and the mean of both temperatures.

    No image takes part in fitting its own temperature. Even and odd images are the halves.
    """
    result, temperatures = torch.empty_like(logits), []
    for half in (0, 1):
        temperatures.append(fit_temperature(logits[1 - half :: 2], labels[1 - half :: 2]))
        result[half::2] = logits[half::2] / temperatures[-1]
    return result, sum(temperatures) / 2
