"""``mixcollate demo``: train a small network on plain and on mixed images, with correct and with wrong labels."""

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from PIL import Image, ImageColor
from torch.utils.data import default_collate

from mixcollate.commands import refusing
from mixcollate.commands.compare import bar_of_epochs, draw_results, grid, table
from mixcollate.commands.data import Data
from mixcollate.commands.preview import COLOURS, preview
from mixcollate.commands.recipes import parse
from mixcollate.commands.summary import Row, lines
from mixcollate.commands.training import data_of, execute, loaders
from mixcollate.loader import DeviceLoader

METHOD = "mixup-or-cutmix"


def demo(options: Any) -> None:
    """Train plain and mixed with the same seeds and schedule; print a table and a verdict, draw two pictures."""
    from rich.console import Console

    name = options.data
    epochs, count = options.epochs or (30 if name == "digits" else 5), options.runs or (3 if name == "digits" else 1)
    seeds = list(range(options.seed, options.seed + count))
    runs = grid(
        {"label_noise": options.label_noise, "method": ["plain", METHOD]}, {"data": name, "epochs": epochs}, seeds
    )
    # leave the workers a core each: threads that wait for one another cost more than they gain
    torch.set_num_threads(max((os.cpu_count() or 1) - options.workers, 1))
    data = data_of(name, options.root, runs[0].pixels)
    with refusing(f"--out must be a folder that can be written, got {options.out}", OSError):
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()
    console = Console()
    console.print(
        f"{name}: {len(data.train)} images to train, {len(data.test)} to test, {len(data.classes)} classes; "  # type: ignore[arg-type]
        f"{count} × {epochs} epochs plain and mixed (MixUp or CutMix), with "
        f"{' and '.join(map(_labels, options.label_noise))}; {options.workers} workers, on {options.device}."
    )
    rows: list[Row] = []
    with bar_of_epochs(console) as progress:
        bar = progress.add_task("", total=len(runs) * epochs)
        for run in runs:
            progress.update(bar, description=f"seed {run.seed}, {_labels(run.label_noise)}, {run.method}")
            outcome = execute(
                run,
                options.root,
                device=options.device,
                workers=options.workers,
                points=10,
                advance=lambda: progress.advance(bar),
            )
            rows.append({"run": asdict(run), "outcome": asdict(outcome)})
        progress.update(bar, description="the loader alone")
        loader, _ = loaders(runs[1], data, options.device, options.workers)
        plain, mixed = images_per_second(loader)
        progress.update(bar, description="done")

    console.print(table(rows))
    for sentence in verdict(rows):
        console.print(sentence)
    console.print(f"Through the loader, with no training: {plain:,.0f} plain, {mixed:,.0f} mixed images a second.")
    picture = options.out / "mixed.png"
    sheet = _draw(data, options.seed)
    with refusing(f"pictures must be files that can be written, got {picture}", OSError):
        sheet.save(picture, optimize=True)
    console.print(f"A mixed batch and its soft labels: {picture}", soft_wrap=True, markup=False)
    draw_results(rows, options.out, console)


def _labels(noise: float) -> str:
    return f"{noise:.0%} wrong labels" if noise else "right labels"


def images_per_second(loader: DeviceLoader, rounds: int = 7, seconds: float = 0.2) -> tuple[float, float]:
    """Medians, plain and mixed, measured in turns with one loader, which normalises and makes targets either way."""
    for _ in loader:  # start workers, allocate memory
        pass
    speeds: tuple[list[float], list[float]] = [], []
    for turn in range(2 * rounds):
        loader.collate_fn.enabled = bool(turn % 2)
        count, start, elapsed = 0, time.perf_counter(), 0.0
        while elapsed < seconds:  # whole epochs
            count += sum(len(images) for images, _ in loader)
            if loader.device.type == "cuda":
                torch.cuda.synchronize(loader.device)
            elapsed = time.perf_counter() - start
        speeds[turn % 2].append(count / elapsed)
    return statistics.median(speeds[0]), statistics.median(speeds[1])


def verdict(rows: Sequence[Row]) -> list[str]:
    """The results in a sentence for each share of wrong labels, and one on calibration."""
    sentences, arms = [], lines(rows)  # plain and mixed in turns
    for line in arms[1::2]:
        gain = line.gain
        sentence = f"With {_labels(line.rows[0]['run']['label_noise'])}, mixing changed the accuracy by {gain} points"
        if gain is None or gain.seeds == 1:
            sentences.append(f"{sentence}; a single run says little (--runs 3 shows the spread).")
        elif not gain.shown:
            sentences.append(f"{sentence}: the interval contains 0, so this is no evidence of a difference.")
        else:
            sentences.append(f"{sentence}: it {'helped' if gain.mean > 0 else 'hurt'}.")
    doubts = [line.of("accuracy").mean - line.of("confidence").mean for line in arms]
    if all(mixed > max(plain, 0) + 1 for plain, mixed in zip(doubts[::2], doubts[1::2], strict=True)):
        ends = (arms[1].of(name).text() for name in ("calibration_error", "tempered_calibration_error"))
        sentences.append(
            "Trained on soft labels the network is underconfident, hence its calibration error (ECE); a single number, "
            f"the temperature T, reduces it from {' to '.join(ends)} %."
        )
    return sentences


def _draw(data: Data, seed: int) -> Image.Image:
    """A dozen training images before and after mixing; grey ones are tinted by class, to tell them apart."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    images, labels = default_collate([data.train[int(index)] for index in order[:12]])
    title = "Mixed by MixUp or CutMix, chosen for each pair"
    if images.shape[1] == 1:
        palette = torch.tensor([ImageColor.getrgb(colour) for colour in COLOURS])
        tints = palette[labels % len(palette)] / 255
        images = (images * tints[:, :, None, None]).to(torch.uint8)
    return preview(images, {title: parse(METHOD)}, names=data.classes, labels=labels, seed=seed)
