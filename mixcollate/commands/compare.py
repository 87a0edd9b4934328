"""``mixcollate compare``: train one recipe with several methods and seeds, and compare the results."""

import contextlib
import datetime
import itertools
import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mixcollate.commands import Refusal, refusing
from mixcollate.commands.article import beside
from mixcollate.commands.environment import version
from mixcollate.commands.plots import draw
from mixcollate.commands.summary import LEGEND, SEVERAL, Row, cells, command, varying
from mixcollate.commands.training import Run, execute, try_out

ROOT = Path(__file__).parents[2]
"""The folder of the checkout, unless the package is installed elsewhere."""


def grid(varied: dict[str, Sequence[Any]], fixed: dict[str, Any], seeds: Sequence[int]) -> list[Run]:
    """All combinations, seed by seed: if interrupted, all of them have been run about equally often."""
    combinations = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    return [Run(**fixed, **combination, seed=seed) for seed in seeds for combination in combinations]


def read(path: Path) -> list[Row]:
    """The rows of a JSON lines file; an incomplete last line, left by an interrupted write, is removed."""
    asked = f"--out must be a new file, or one written by this command, got {path}"
    with refusing(asked, OSError, ValueError):
        if path.exists() and not path.is_file():  # a folder, or an endless device
            raise Refusal(f"{asked}: it is not a regular file")
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        *lines, last = text.split("\n")
        rows = [json.loads(line) for line in lines if line]
    # a line may be empty, and the last may be cut off anywhere: it begins like a row as far as it goes
    ours = all('{"run": '.startswith(line[:8]) for line in (*lines, last))
    if not ours or not all(isinstance(row.get(part), dict) for row in rows for part in ("run", "outcome", "made")):
        raise Refusal(f"{asked}: it has lines of another kind")
    if last:  # a complete row ends with a newline
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return rows


def carry_out(
    runs: Iterable[Run],
    path: Path,
    root: Path,
    *,
    device: torch.device,
    workers: int = 0,
    points: int = 1,
    advance: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Carry out the runs that are not in the file, appending each row at once; return the rows of ``runs`` in order."""
    runs = list(runs)
    done = {_key(row["run"], row["made"].get("root")): row for row in read(path)}
    left = [run for run in runs if _key(asdict(run), _root(run, root)) not in done]
    for run in dict.fromkeys(replace(run, seed=0) for run in left):
        try_out(run, root)
    if left:
        _append(path, "")
    rows = []
    for run in runs:
        key = _key(asdict(run), _root(run, root))
        if key in done:
            for _ in range(run.epochs):
                advance()
        else:
            start = time.perf_counter()
            outcome = execute(run, root, device=device, workers=workers, points=points, advance=advance)
            made = {**_made(start, device, workers), "root": _root(run, root)}
            line = json.dumps({"run": asdict(run), "outcome": asdict(outcome), "made": made})
            done[key] = json.loads(line)
            _append(path, line + "\n")
        rows.append(done[key])
    return rows


def _append(path: Path, text: str) -> None:
    with refusing(f"--out must be a file that can be written, got {path}", OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def _key(run: dict[str, Any], root: str | None) -> str:
    return json.dumps([run, root], sort_keys=True)


def _root(run: Run, root: Path) -> str | None:
    """The folder whose pictures a run trains on; ``None`` for data that are the same in every folder."""
    return str(root.resolve()) if run.data == "imagefolder" else None


def _made(start: float, device: torch.device, workers: int) -> dict[str, Any]:
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "device": f"{device.type}: {where}",
        "threads": torch.get_num_threads(),
        "workers": workers,
        **{name: version(name) for name in ("torch", "torchvision", "numpy")},
    }


def _commit() -> str:
    """The commit of this checkout, or the installed version if it is none or git is missing."""
    described = ""
    if (ROOT / ".git").exists():  # an installed package may lie in a checkout of something else
        with contextlib.suppress(OSError):
            git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=9"]
            described = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return described or version("mixcollate")


def runs_of(options: Any) -> list[Run]:
    """The runs that the command line asks for."""
    varied = {name: getattr(options, name) for name in SEVERAL}
    fixed = ("data", "pixels", "classes", "architecture", "start_epochs", "warm_up", "off_epoch")
    settings = {name: getattr(options, name) for name in (*fixed, "batch_size", "learning_rate")}
    try:
        return grid({**varied, "method": options.methods}, settings, options.seeds)
    except ValueError as error:
        raise Refusal(str(error)) from error


def compare(runs: Sequence[Run], options: Any) -> None:
    """Carry out the runs, append new rows to the file, and print and draw the results."""
    from rich.console import Console

    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console()
    with bar_of_epochs(console) as progress:
        bar = progress.add_task(f"{len(runs)} runs on {options.device}: epochs", total=sum(run.epochs for run in runs))
        rows = carry_out(
            runs,
            options.out,
            options.root,
            device=options.device,
            workers=options.workers,
            points=options.points,
            advance=lambda: progress.advance(bar),
        )
    console.print(table(rows))
    if options.like:
        console.print(_columns(beside(rows), 1))
    console.print(f"Rows: {options.out}; to repeat: {command(rows)}", soft_wrap=True, markup=False)
    draw_results(rows, options.out.parent, console, f"{options.out.stem}-")


def bar_of_epochs(console: Any) -> Any:
    """A progress bar of epochs."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)


def draw_results(rows: Sequence[Row], folder: Path, console: Any, prefix: str = "") -> None:
    """Draw these rows, and print where the pictures are."""
    try:
        for path in draw(rows, folder, prefix):
            console.print(f"A picture: {path}", soft_wrap=True, markup=False)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        console.print('No pictures: matplotlib is not installed: pip install "mixcollate[cli]"')


def table(rows: Sequence[Row]) -> Any:
    """The summary as a table for the terminal."""
    shown = cells(rows, ("accuracy", "calibration_error", "tempered_calibration_error"))
    return _columns(shown, len(varying(rows)) + 1, caption=LEGEND)


def _columns(texts: Sequence[Sequence[str]], words: int, **options: Any) -> Any:
    """A table for the terminal: the first ``words`` columns are text, the others numbers."""
    from rich.table import Table

    head, *body = texts
    result = Table(**options)
    for place, name in enumerate(head):
        result.add_column(name, justify="left" if place < words else "right")
    for line in body:
        result.add_row(*line)
    return result
