"""``mixcollate preview``: draw what transforms do to pictures from files, folders or scikit-image."""

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from mixcollate import methods
from mixcollate.commands import Refusal, refusing
from mixcollate.commands.preview import preview
from mixcollate.commands.recipes import parse
from mixcollate.stream import Stream
from mixcollate.transforms import MixTransform

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SAMPLES = {
    "cat": "chelsea",
    "coffee": "coffee",
    "astronaut": "astronaut",
    "rocket": "rocket",
    "eye": "retina",
    "camera": "camera",
}
"""The default pictures and their names in scikit-image; all are in the public domain."""
ALL = {name: method(p=1) for name, method in methods.ALL.items()}
"""The methods by their titles; with ``p=1``, so that every image shows what they do."""
PER_FOLDER = 12
"""Maximum number of pictures used from a folder."""
PATIENCE = 2
"""Seconds of reading after which a progress bar appears."""


def draw(paths: Sequence[Path], *, transform: str, out: Path, seed: int, size: int) -> None:
    """Write a contact sheet of one transform or of all methods; the subfolders of a folder are the classes."""
    chosen = titled(transform)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise Refusal(f"--out must end in .png or .jpg, got {printable(out)}")
    found = _read_all(paths) if paths else _samples()
    if len(found) < 2:
        raise Refusal(f"IMAGES must be two or more pictures, to be mixed with each other, got {printable(paths[0])}")
    images = torch.stack([_square(picture, size) for _, picture in found])
    names = list(dict.fromkeys(name for name, _ in found))
    labels = torch.tensor([names.index(name) for name, _ in found])
    with refusing(f"--transform {transform} at --size {size}", ValueError, TypeError):
        for method in chosen.values():
            method.make_plan(images, stream=Stream(seed), epoch=0)
    sheet = preview(images, chosen, names=names, labels=labels, seed=seed)
    with refusing(f"--out must be a file that can be written, got {printable(out)}", OSError):
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out, optimize=True, quality=85)
    print(f"{printable(out)}: {sheet.width}×{sheet.height} pixels, {out.stat().st_size // 1024} kB")


def titled(text: str) -> dict[str, MixTransform]:
    """The transforms to draw, by title."""
    if text.lower() == "all":
        return dict(ALL)
    title = next((name for name in ALL if name.lower() == text.lower()), None)
    with refusing("--transform", ValueError):
        return {text: parse(text)} if title is None else {title: ALL[title]}


def printable(path: Path | str) -> str:
    """A path as text that can be printed and drawn, whatever bytes it contains."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def read(path: Path | str) -> Image.Image:
    """Read a picture as RGB, rotated as its EXIF data say; files that are not pictures, or too large, are refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                upright = ImageOps.exif_transpose(picture)
        if upright.mode[0] in "IF":  # 16 bits or more, which convert would clip
            values = np.asarray(upright, np.float64)
            is_wide = upright.mode[0] == "I" and values.max(initial=0) > 255
            greatest = 65535 if is_wide else values.max(initial=1)
            upright = Image.fromarray((values.clip(0) * (255 / greatest)).clip(0, 255).round().astype(np.uint8))
        return upright.convert("RGB")
    # decoders of broken files raise all kinds of errors: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Refusal(f"IMAGES must be pictures, got {printable(path)} ({printable(why)})") from error


def _read_all(paths: Sequence[Path]) -> list[tuple[str, Image.Image]]:
    """The pictures with their classes; on a terminal, with a progress bar if that takes long."""
    from rich.console import Console
    from rich.progress import Progress

    files = [one for path in paths for one in _labelled(path)]
    console, start, found = Console(stderr=True), time.monotonic(), []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading pictures", total=len(files), visible=False)
        for name, file in files:
            found.append((name, read(file)))
            progress.update(task, advance=1, visible=time.monotonic() - start > PATIENCE)
    return found


def _labelled(path: Path) -> list[tuple[str, Path]]:
    """Pictures with their classes: the names of the subfolders of a folder, if it has any, else of the files."""
    if not path.is_dir():
        return [(printable(path.stem), path)]
    inner = sorted(entry for entry in path.iterdir() if entry.is_dir())
    folders = [sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES) for folder in inner]
    if any(folders):
        turns = [files[turn : turn + 1] for turn in range(PER_FOLDER) for files in folders]  # some of each class
        files = [file for turn in turns for file in turn]
    else:
        files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    if not files:
        raise Refusal(f"IMAGES must be pictures or folders that contain some, got {printable(path)}")
    return [(printable(file.parent.name if any(folders) else file.stem), file) for file in files[:PER_FOLDER]]


def _samples() -> list[tuple[str, Image.Image]]:
    from skimage import data

    return [(name, Image.fromarray(getattr(data, picture)()).convert("RGB")) for name, picture in SAMPLES.items()]


def _square(picture: Image.Image, size: int) -> Tensor:
    """``[3, size, size]`` uint8: the centre of the picture."""
    return functional.pil_to_tensor(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS))
