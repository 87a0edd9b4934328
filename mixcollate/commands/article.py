"""The experiment of the article that this project started from: ``mixcollate compare --like article``."""

from collections.abc import Sequence
from typing import Any

from mixcollate.commands.summary import Row, estimate, lines

OPTIONS: dict[str, Any] = {
    "data": "cifar10",
    "architecture": "resnet50",
    "start": ["pretrained"],
    "pixels": 224,
    "batch_size": 64,
    "epochs": [20],
    "methods": ["plain", "article", "cutout", "randomerasing", "ricap", "gridmask", "hideandseek"],
    "seeds": list(range(8)),
    "workers": 8,
}
"""A ResNet-50 pretrained on ImageNet, one schedule for all methods, eight runs each; with the methods of its sister
articles.

The article does not give its number of epochs, learning rate or image size; the values here are ours.
"""

RESULTS = {
    "cifar10": {
        "plain": (96.76, 96.82, 96.81, 96.79, 96.72, 96.69, 96.60, 96.82),
        "article": (96.56, 96.61, 96.35, 96.49, 96.67, 96.56, 96.31, 96.39),
    },
    "cifar100": {
        "plain": (83.80, 83.66, 84.19, 83.26, 83.89, 83.90, 83.57, 83.69),
        "article": (82.48, 82.55, 82.77, 82.06, 82.50, 82.35, 82.23, 82.40),
    },
}
"""The article's test accuracy in each run; ``"article"`` is its mixup."""


def beside(rows: Sequence[Row]) -> list[list[str]]:
    """Rows of a table of our accuracies and the article's, the header first; the article's only for its datasets."""
    theirs = RESULTS.get(rows[0]["run"]["data"], {})
    table = [["method", "accuracy", "runs", "the article's", "runs"]]
    for line in lines(rows):
        reported = estimate(theirs[line.method]).text(2) if line.method in theirs else "not given"
        count = str(len(theirs.get(line.method, ())) or "")
        table.append([line.method, line.of("accuracy").text(2), str(len(line.rows)), reported, count])
    return table
