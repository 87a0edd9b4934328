"""The data sets of ``mixcollate demo``: real images, as uint8 tensors with a class index each."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import datasets
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional


@dataclass(frozen=True)
class Data:
    """Two data sets of ``(uint8 image, class index)``, and what the demo has to know of them."""

    train: Dataset[Any]
    test: Dataset[Any]
    classes: Sequence[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int = 128
    epochs: int = 5
    runs: int = 1


def load(name: str, root: Path) -> Data:
    """The data set of this name; all but ``"digits"`` lie under ``root``."""
    if name == "digits":
        return _digits()
    if name == "imagefolder":
        return _image_folder(root)
    if name == "fashion-mnist":
        if (root / "train-images-idx3-ubyte.gz").exists():
            train, test = _fashion_files(root, "train"), _fashion_files(root, "t10k")
        else:
            train, test = (_stored(datasets.FashionMNIST, root, is_train, [], name) for is_train in (True, False))
        return Data(train, test, datasets.FashionMNIST.classes, (0.286,), (0.353,))
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    augment = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
    train, test = _stored(kind, root, True, augment, name), _stored(kind, root, False, [], name)
    return Data(train, test, train.classes, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262))


def _digits() -> Data:
    """scikit-learn's digits, split as its own example does: the second half is by other writers."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images / 16)[:, None]  # [1797, 1, 8, 8]
    images = functional.resize(images, [16, 16], functional.InterpolationMode.BICUBIC)
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
        batch_size=64,
        epochs=40,
        runs=3,
    )


def _stored(kind: Any, root: Path, train: bool, augment: Sequence[v2.Transform], name: str) -> Any:
    """One half of a torchvision data set that is on disk already."""
    try:
        return kind(root, train=train, transform=v2.Compose([v2.PILToTensor(), *augment]))
    except RuntimeError as error:
        way_out = f'python -c "from torchvision.datasets import {kind.__name__} as d; d({str(root)!r}, download=True)"'
        if name == "fashion-mnist":
            way_out += ", or give the folder with the four .gz files (Debian's dataset-fashion-mnist installs one)"
        raise SystemExit(f"mixcollate demo: no {name} in --root {root}; get it with: {way_out}") from error


def _fashion_files(root: Path, part: str) -> TensorDataset:
    """Fashion-MNIST from its original files."""

    def numbers(name: str, header: int) -> Tensor:
        return torch.frombuffer(bytearray(gzip.decompress((root / name).read_bytes())[header:]), dtype=torch.uint8)

    images = numbers(f"{part}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
    return TensorDataset(images, numbers(f"{part}-labels-idx1-ubyte.gz", 8).long())


def _image_folder(root: Path) -> Data:
    """Pictures in a folder for each class, under ``train`` and ``val`` (or ``test``), or else split here."""
    size = 96
    crop = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    middle = v2.Compose([v2.Resize(size * 8 // 7), v2.CenterCrop(size), v2.PILToTensor()])
    held_out = next((root / name for name in ("val", "test") if (root / name).is_dir()), None)
    try:
        if held_out is not None:
            train = datasets.ImageFolder(root / "train", crop)
            parts: tuple[Dataset[Any], Dataset[Any]] = (train, datasets.ImageFolder(held_out, middle))
        else:
            train = datasets.ImageFolder(root, crop)
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
            fifth = len(order) // 5
            parts = Subset(train, order[fifth:]), Subset(datasets.ImageFolder(root, middle), order[:fifth])
    except FileNotFoundError as error:
        raise SystemExit(
            f"mixcollate demo: no pictures in --root {root}; "
            f"it must hold a folder for each class, or train and val with those in them ({error})"
        ) from error
    return Data(*parts, train.classes, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), batch_size=64)
