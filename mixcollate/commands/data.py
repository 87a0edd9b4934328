"""The datasets of the commands: uint8 images with class indices; subsets of them, and wrong labels."""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import datasets
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from mixcollate.commands import Refusal
from mixcollate.commands.pictures import read

PIXELS = {"digits": 12, "fashion-mnist": 28, "cifar10": 32, "cifar100": 32, "imagefolder": 96}
"""The datasets, and the height and width of their images."""
BATCH_SIZES = {"digits": 64, "fashion-mnist": 128, "cifar10": 128, "cifar100": 128, "imagefolder": 64}


@dataclass(frozen=True)
class Data:
    """Datasets of ``(uint8 image, class index)`` for training and testing, and what training needs to know."""

    train: Dataset[Any]
    test: Dataset[Any]
    classes: Sequence[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load(name: str, root: Path, pixels: int) -> Data:
    """The dataset of this name, with images of this height and width; all but ``"digits"`` are read from ``root``."""
    if name == "digits":
        return _digits(pixels)
    if name == "imagefolder":
        return _image_folder(root, pixels)
    if name == "fashion-mnist":
        if (root / "train-images-idx3-ubyte.gz").exists():
            train, test = (_fashion_files(root, part, pixels) for part in ("train", "t10k"))
        else:
            train, test = (_stored(datasets.FashionMNIST, root, is_train, [], name) for is_train in (True, False))
            train, test = (TensorDataset(_sized(part.data[:, None], pixels), part.targets) for part in (train, test))
        return Data(train, test, datasets.FashionMNIST.classes, (0.286,), (0.353,))
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    resize = [] if pixels == 32 else [v2.Resize(pixels)]
    augment = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
    train = _stored(kind, root, True, [*augment, *resize], name)
    return Data(
        train, _stored(kind, root, False, resize, name), train.classes, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
    )


class Labelled(Dataset[Any]):
    """The images of a dataset at ``indices``, with other labels."""

    def __init__(self, images: Dataset[Any], indices: Tensor, labels: Tensor) -> None:
        self.images, self.indices, self.labels = images, indices.tolist(), labels.tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[self.indices[index]][0], self.labels[index]


def subset(
    data: Data, *, share: float = 1.0, rest: bool = False, classes: str = "all", label_noise: float = 0.0, seed: int = 0
) -> Data:
    """A subset of a dataset, with some wrong labels in its training set, but none in its test set.

    Args:
        data: the dataset; left unchanged.
        share: share of the training images of each class.
        rest: use the training images that ``share`` leaves over instead.
        classes: ``"all"``, ``"first-half"`` or ``"second-half"``, for training and testing.
        label_noise: share of the training labels, rounded to whole images, that are changed to another class.
        seed: seed of the subset and of the wrong labels.
    """
    half = len(data.classes) // 2
    first, last = {"all": (0, len(data.classes)), "first-half": (0, half), "second-half": (half, len(data.classes))}[
        classes
    ]
    train, test = _labels(data.train), _labels(data.test)
    draw = np.random.default_rng(seed)
    order = torch.from_numpy(draw.permutation(len(train)))
    chosen = []
    for index in range(first, last):
        members = order[train[order] == index]
        count = max(round(share * len(members)), 1)
        chosen.append(members[count:] if rest else members[:count])
    if not any(map(len, chosen)):
        which = "what --share leaves over" if rest else f"the {classes} of {len(data.classes)} classes"
        raise Refusal(f"training must have images, got none in {which}; use --start random")
    if last - first < 2:
        raise Refusal(f"training must have two classes or more, got only {data.classes[first]!r}")
    indices = torch.cat(chosen).sort().values
    labels = train[indices] - first
    wrong = torch.from_numpy(draw.permutation(len(labels))[: round(label_noise * len(labels))])
    labels[wrong] = (labels[wrong] + torch.from_numpy(draw.integers(1, last - first, len(wrong)))) % (last - first)
    tested = ((test >= first) & (test < last)).nonzero()[:, 0]
    return replace(
        data,
        train=Labelled(data.train, indices, labels),
        test=Labelled(data.test, tested, test[tested] - first),
        classes=data.classes[first:last],
    )


def _labels(dataset: Any) -> Tensor:
    """``[len(dataset)]`` int64, without reading an image."""
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1]
    if isinstance(dataset, Subset):
        return _labels(dataset.dataset)[torch.as_tensor(dataset.indices)]
    return torch.as_tensor(dataset.targets)


def _sized(images: Tensor, pixels: int) -> Tensor:
    """uint8 images resized to this height and width: averaged if they shrink, bicubic if they grow."""
    if pixels < images.shape[-1]:
        return torch.nn.functional.interpolate(images.float(), (pixels, pixels), mode="area").round().to(torch.uint8)
    return functional.resize(images, [pixels, pixels], functional.InterpolationMode.BICUBIC)


def _digits(pixels: int) -> Data:
    """scikit-learn's digits, split as in its own example: the second half is by other writers."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images / 16)[:, None]  # [1797, 1, 8, 8]
    if pixels != 8:
        images = functional.resize(images, [pixels, pixels], functional.InterpolationMode.BICUBIC)
    images = functional.to_dtype(images.clamp(0, 1), torch.uint8, scale=True)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    half = len(images) // 2
    known = images[:half].double() / 255
    return Data(
        TensorDataset(images[:half], labels[:half]),
        TensorDataset(images[half:], labels[half:]),
        [str(number) for number in range(10)],
        (float(known.mean()),),
        (float(known.std()),),
    )


def _stored(kind: Any, root: Path, train: bool, augment: Sequence[v2.Transform], name: str) -> Any:
    """The training or test set of a torchvision dataset that is on disk already."""
    try:
        return kind(root, train=train, transform=v2.Compose([v2.PILToTensor(), *augment]))
    except RuntimeError as error:
        way_out = f'python -c "from torchvision.datasets import {kind.__name__} as d; d({str(root)!r}, download=True)"'
        if name == "fashion-mnist":
            way_out += ", or pass the folder with the four .gz files (Debian's dataset-fashion-mnist installs one)"
        raise Refusal(f"no {name} in --root {root}; get it with: {way_out}") from error


def _fashion_files(root: Path, part: str, pixels: int) -> TensorDataset:
    """Fashion-MNIST from its original files."""

    def numbers(name: str, header: int) -> Tensor:
        return torch.frombuffer(bytearray(gzip.decompress((root / name).read_bytes())[header:]), dtype=torch.uint8)

    try:
        images = numbers(f"{part}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
        return TensorDataset(_sized(images, pixels), numbers(f"{part}-labels-idx1-ubyte.gz", 8).long())
    except (OSError, EOFError, zlib.error, ValueError, RuntimeError, AssertionError) as error:
        raise Refusal(f"the files of Fashion-MNIST in --root {root} cannot be read: {error}") from error


def _image_folder(root: Path, size: int) -> Data:
    """Pictures in one folder for each class, under ``train`` and ``val`` (or ``test``), or else split here."""
    crop = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    middle = v2.Compose([v2.Resize(size * 8 // 7), v2.CenterCrop(size), v2.PILToTensor()])
    held_out = next((root / name for name in ("val", "test") if (root / name).is_dir()), None)
    for path in root.rglob("*"):
        if path.is_symlink() and path.is_dir() and path.resolve() in path.absolute().parents:
            raise Refusal(f"--root must not contain links to its parent folders, got {path}")
    try:
        if held_out is not None:
            train = datasets.ImageFolder(root / "train", crop, loader=read)
            test = datasets.ImageFolder(held_out, middle, loader=read)
            if other := {*train.classes} ^ {*test.classes}:  # classes are numbered in each by itself
                raise Refusal(
                    f"--root must hold the same classes in train and {held_out.name}, got {sorted(other)} in one of "
                    "them only"
                )
            parts: tuple[Dataset[Any], Dataset[Any]] = (train, test)
        else:
            train = datasets.ImageFolder(root, crop, loader=read)
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
            fifth = len(order) // 5
            if not fifth:
                raise Refusal(f"--root must hold five pictures or more, to test on a fifth of them, got {len(order)}")
            parts = Subset(train, order[fifth:]), Subset(datasets.ImageFolder(root, middle, loader=read), order[:fifth])
    except OSError as error:
        raise Refusal(
            f"no pictures in --root {root}; "
            f"it must contain a folder for each class, or train and val with those in them ({error})"
        ) from error
    return Data(*parts, train.classes, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
