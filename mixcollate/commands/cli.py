"""The command line: ``mixcollate demo | compare | preview | bench | env``."""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

from mixcollate.checks import check_device
from mixcollate.commands import Refusal, article
from mixcollate.commands.compare import compare, runs_of
from mixcollate.commands.data import PIXELS
from mixcollate.commands.environment import env
from mixcollate.commands.networks import ARCHITECTURES
from mixcollate.commands.pictures import draw
from mixcollate.commands.training import STARTS

T = TypeVar("T")

EXTRA = ("rich", "scipy", "sklearn", "skimage", "pytest", "pytest_benchmark")
"""What only the commands need: imported by the command that does."""
MANY = 1_000_000
"""More epochs, images or runs than anyone waits for."""
LARGE = 4096
"""Pixels a side of images for which there is memory."""
PARALLEL = 1024
"""Processes or threads that a machine bears."""
SEEDS = 0, 2**63 - 1
"""The least and the greatest: a demo's further runs have the next ones, and torch takes none above 2**64."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments``; default: those of this process.

    Ends with status 2 where something was asked that cannot be done, 130 where it was interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    passed_on: list[str] = []
    if given[:1] == ["bench"] and given[1:] not in (["-h"], ["--help"]):
        given, passed_on = given[:1], given[1:]  # all of them are pytest's
    options = parser().parse_args(given)
    try:
        if options.command == "demo":
            from mixcollate.commands.demo import demo

            demo(options)
        elif options.command == "compare":
            compare(runs_of(options), options)
        elif options.command == "preview":
            draw(options.images, transform=options.transform, out=options.out, seed=options.seed, size=options.size)
        elif options.command == "bench":
            bench(passed_on)
        else:
            env()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        _end(options.command, f'it needs {missing}, which is missing: pip install "mixcollate[cli]"', 2)
    except Refusal as error:
        _end(options.command, str(error).rpartition("Refusal: ")[2].strip(), 2)  # a worker's comes with its traceback
    except KeyboardInterrupt:
        done = "; what is done is kept, and the same command goes on from there" if options.command == "compare" else ""
        _end(options.command, f"interrupted{done}", 130)


def _end(command: str, message: str, status: int) -> NoReturn:
    print(f"mixcollate {command}: {message}", file=sys.stderr)
    raise SystemExit(status)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults are told where there are any, and examples stay as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, []) else super()._get_help_string(action)


EXAMPLES = {
    "demo": "mixcollate demo --runs 1 --label-noise 0.4",
    "compare": 'mixcollate compare --methods plain cutmix "MixUp(alpha=8)" --label-noise 0 0.4 --epochs 10 30',
    "preview": 'mixcollate preview cat.jpg dog.jpg --transform "RandomChoice([MixUp(alpha=0.8), CutMix()])"',
    "bench": "mixcollate bench -k naive",
    "env": "mixcollate env",
}
"""One of each command, as its help tells it."""


def parser() -> argparse.ArgumentParser:
    """What the commands take."""
    result = argparse.ArgumentParser(
        "mixcollate",
        description="mixup and its relatives on the device.",
        epilog="examples:\n" + "".join(f"  {example}\n" for example in EXAMPLES.values()),
        formatter_class=_Help,
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, told: str, more: str = "") -> argparse.ArgumentParser:
        description = textwrap.fill(f"{told[0].upper()}{told[1:]}. {more}", 80)
        example = f"example:\n  {EXAMPLES[name]}"
        return commands.add_parser(name, help=told, description=description, epilog=example, formatter_class=_Help)

    command = add("demo", "train a small network, plain and mixed, with right and wrong labels, and compare")
    command.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where the pictures go")
    command.add_argument("--data", choices=tuple(PIXELS), default="digits")
    command.add_argument("--root", type=Path, default=Path("data"), help="where the data lie; digits need none")
    command.add_argument("--epochs", type=_whole(1), help="of each run; not given: 30 for digits, else 5")
    command.add_argument("--runs", type=_whole(1), help="with different seeds; not given: 3 for digits, else 1")
    command.add_argument(
        "--label-noise", nargs="+", type=_share, default=[0.0, 0.4], metavar="SHARE", help="of the training labels"
    )
    command.add_argument("--workers", type=_whole(0, PARALLEL), default=2, help="processes that load data")
    command.add_argument("--seed", type=_whole(*SEEDS), default=0, help="of the first run")
    command.add_argument("--device", type=_device, default="auto", help="auto: the GPU if there is one")

    _add_comparison(add("compare", "train with several methods and seeds, and compare", _COMPARE))

    command = add("preview", "draw what the methods do to pictures", _PREVIEW)
    command.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="none: some of scikit-image's")
    command.add_argument(
        "--transform", "--method", default="all", help="all methods, a name (mixup, deit, article, ...), or Python"
    )
    command.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG or JPEG")
    command.add_argument("--seed", type=_whole(*SEEDS), default=0)
    command.add_argument(
        "--size", type=_whole(1, LARGE), default=224, help="pictures are cropped and scaled to this square"
    )

    add("bench", "run the benchmarks of a checkout", _BENCH)
    add("env", "print versions, devices, and which implementation mixes here and why")
    return result


_COMPARE = (
    "Seed by seed, all combinations of methods, lengths, starts and shares. A method is plain, a name (cutmix, deit, "
    "article, ...) or Python such as MixUp(alpha=8). Rows are added to --out as they finish; what is there stays."
)
_PREVIEW = (
    "Images are two or more files, or a folder of pictures, or of folders that are their classes. Two pictures with "
    "--transform article --seed 2 give the picture of the articles on mixup: each mixed with the other at the share "
    "that was drawn (a random permutation of two leaves them as they are under half of the seeds)."
)
_BENCH = (
    "Runs benchmarks/ with pytest-benchmark; prints how we compare with the fastest other, and writes the results and "
    "pictures of them to a new folder in bench/ of the current directory. All arguments are pytest's. pytest-benchmark "
    "prints its own tables too if one of its options asks for something: --benchmark-columns=min,median"
)


def _add_comparison(command: argparse.ArgumentParser) -> None:
    take = command.add_argument
    take(
        "--out",
        type=Path,
        default=Path("compare/results.jsonl"),
        metavar="FILE",
        help="JSON lines; what is there stays",
    )
    take("--like", choices=("article",), action=_Like, help="its experiment; options after this change it")
    take("--data", choices=tuple(PIXELS), default="digits")
    take("--root", type=Path, default=Path("data"), help="where the data lie; digits need none")
    take(
        "--methods", nargs="+", default=["plain", "mixup", "cutmix"], metavar="METHOD", help="plain, a name, or Python"
    )
    take("--seeds", nargs="+", type=_whole(*SEEDS), default=[0, 1, 2], metavar="SEED")
    take("--epochs", nargs="+", type=_whole(1), default=[40], help="one or several lengths of training")
    take("--label-noise", nargs="+", type=_share, default=[0.0], metavar="SHARE", help="of the training labels")
    take("--share", nargs="+", type=_positive_share, default=[1.0], help="of the training images")
    take("--start", nargs="+", choices=STARTS, default=["random"], help="what training begins from")
    take(
        "--pretrained", dest="start", action="store_const", const=["pretrained"], help="the same as --start pretrained"
    )
    take("--start-epochs", type=_whole(1), default=20, help="plain, on the first half of the classes")
    take("--classes", choices=("all", "second-half"), default="all")
    take("--architecture", choices=tuple(ARCHITECTURES), default="small")
    take("--pixels", type=_whole(0, LARGE), default=0, help="height and width of the images; 0: the data's own")
    take("--warm-up", type=_whole(0), default=0, metavar="EPOCHS", help="of plain images before mixing begins")
    take("--off-epoch", type=int, metavar="EPOCH", help="when mixing ends; negative: counted from the end")
    take("--batch-size", type=_batch_size, default=0, help="0: the data's own")
    take("--learning-rate", type=_rate, default=0.0, help="at the top of its cycle; 0: the architecture's own")
    take("--points", type=_whole(1), default=1, help="at which accuracy is measured along the way")
    take("--workers", type=_whole(0, PARALLEL), default=0, help="processes that load data")
    take("--threads", type=_whole(0, PARALLEL), default=0, help="of torch on the CPU; 0: all cores")
    take("--device", type=_device, default="auto", help="auto: the GPU if there is one")


class _Like(argparse.Action):
    """Sets the options of an experiment; those that follow change it."""

    def __call__(self, parser: object, namespace: argparse.Namespace, *given: object) -> None:
        namespace.like = given[0]
        for name, value in article.OPTIONS.items():
            setattr(namespace, name, value)


def _number(kind: Callable[[str], T], holds: Callable[[T], bool], rule: str) -> Callable[[str], T]:
    def number(text: str) -> T:
        with contextlib.suppress(ValueError):
            if holds(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"must be {rule}, got {text}")

    return number


def _whole(least: int, most: int = MANY) -> Callable[[str], int]:
    return _number(int, lambda count: least <= count <= most, f"a whole number from {least} to {most}")


_share = _number(float, lambda share: 0 <= share <= 1, "in [0, 1]")
_positive_share = _number(float, lambda share: 0 < share <= 1, "in (0, 1]")
_rate = _number(float, lambda rate: 0 <= rate <= 1000, "a number from 0 (the architecture's own) to 1000")
_batch_size = _number(
    int,
    lambda size: size == 0 or 2 <= size <= MANY,  # one image has no partner, nor can it be normalised by its batch
    f"0 (the data's own) or a whole number from 2 to {MANY}",
)


def _device(text: str) -> torch.device:
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = check_device(text)
        torch.zeros(1, device=device).tolist()  # fails where there is none, or it holds no values
    # what a backend raises that is not there: of torch's, or of one that it would import
    except (ValueError, RuntimeError, AssertionError, ImportError) as error:
        told = f"must be a device that torch can use here, got {text!r}; auto takes the GPU if there is one"
        raise argparse.ArgumentTypeError(told) from error
    return device


def bench(arguments: Sequence[str]) -> None:
    """Run the benchmarks of a checkout with these arguments for pytest; print, keep and draw what they measured."""
    import pytest_benchmark  # noqa: F401  # to be told now if it is missing

    root = Path(__file__).parents[2]
    if not (root / "benchmarks").is_dir():
        raise Refusal(
            "the benchmarks are not part of the installed package; "
            "clone the repository, pip install -e '.[bench]', and run it there"
        )
    named = any(os.path.exists(root / argument.partition("::")[0]) for argument in arguments)
    command = [sys.executable, "-m", "pytest", "-o", "python_files=bench_*.py", "--benchmark-enable"]
    command += ["-W", "ignore"]  # what a peer, or an empty selection, warns about is no failure
    if not any(re.match("--benchmark-(?!json)", argument) for argument in arguments):
        command.append("--benchmark-quiet")  # our table says it shorter
    takes = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    takes.add_argument("--benchmark-json")
    out = Path("bench", time.strftime("%Y-%m-%d-%H%M%S")).absolute()
    with tempfile.TemporaryDirectory() as folder:
        raw = root / (takes.parse_known_args(arguments)[0].benchmark_json or Path(folder, "raw.json"))
        before = raw.stat().st_mtime_ns if raw.exists() else None
        command += [f"--benchmark-json={raw}", *arguments, *([] if named else ["benchmarks"])]
        status = subprocess.run(command, cwd=root).returncode
        # pytest leaves it empty, or as it was, where nothing was measured
        if raw.exists() and raw.stat().st_mtime_ns != before and raw.stat().st_size:
            report = [sys.executable, "-m", "benchmarks.report", "condense", "--plot", f"--out={out}", str(raw)]
            reported = subprocess.run(report, cwd=root).returncode  # after a failure too
            status = status or reported
    raise SystemExit(status)
