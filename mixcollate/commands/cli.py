"""The command line: ``mixcollate demo | compare | preview | bench | env``."""

import argparse
import codecs
import contextlib
import io
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

from mixcollate import __version__
from mixcollate.checks import check_device
from mixcollate.commands import Refusal, article
from mixcollate.commands.compare import compare, runs_of
from mixcollate.commands.data import PIXELS
from mixcollate.commands.environment import env
from mixcollate.commands.networks import ARCHITECTURES
from mixcollate.commands.pictures import draw
from mixcollate.commands.training import STARTS

T = TypeVar("T")

SPELLED = {"×": "x", "±": "+-", "…": "...", "━": "-"}
"""How what commands print is written on a terminal that lacks these characters, such as one that knows only ASCII."""
EXTRA = ("rich", "scipy", "sklearn", "skimage", "pytest", "pytest_benchmark")
"""Packages that only commands need; each is imported by the command that needs it."""
MANY = 1_000_000
"""Upper limit of epochs, images and runs."""
LARGE = 4096
"""Upper limit of the height and width of images, in pixels."""
PARALLEL = 1024
"""Upper limit of processes and threads."""
SEEDS = 0, 2**63 - 1
"""Smallest and largest seed: further runs of a demo use the next ones, and torch's must be below 2**64."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments``; default: those of this process.

    Exits with status 2 if the request cannot be fulfilled, with 130 if interrupted, and with 141, as other commands of
    a shell, if nobody reads its output any more.
    """
    try:
        try:
            _run(arguments)
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which Python flushes once more at its end
        raise SystemExit(141) from None


def _run(arguments: Sequence[str] | None) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_spell.__name__)
    given = list(sys.argv[1:] if arguments is None else arguments)
    passed_on: list[str] = []
    if given[:1] == ["bench"] and given[1:] not in (["-h"], ["--help"]):
        given, passed_on = given[:1], given[1:]  # all are for pytest
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
        _end(options.command, f'{missing} is not installed: pip install "mixcollate[cli]"', 2)
    except Refusal as error:
        _end(options.command, str(error).rpartition("Refusal: ")[2].strip(), 2)  # a worker's has a traceback before it
    except KeyboardInterrupt:
        done = "; the same command resumes after the finished runs" if options.command == "compare" else ""
        _end(options.command, f"interrupted{done}", 130)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Write a character that the encoding of a stream lacks with others; this is an error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    return SPELLED.get(character) or character.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(_spell.__name__, _spell)


def _end(command: str, message: str, status: int) -> NoReturn:
    print(f"mixcollate {command}: {message}", file=sys.stderr)
    raise SystemExit(status)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there are any, and leaves the examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, []) else super()._get_help_string(action)


EXAMPLES = {
    "demo": "mixcollate demo --runs 1 --label-noise 0.4",
    "compare": 'mixcollate compare --methods plain cutmix "MixUp(alpha=8)" --label-noise 0 0.4 --epochs 10 30',
    "preview": 'mixcollate preview cat.jpg dog.jpg --transform "RandomChoice([MixUp(alpha=0.8), CutMix()])"',
    "bench": "mixcollate bench -k naive",
    "env": "mixcollate env",
}
"""An example of each command, for its help."""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    result = argparse.ArgumentParser(
        "mixcollate",
        description="mixup and its relatives on the device.",
        epilog="examples:\n" + "".join(f"  {example}\n" for example in EXAMPLES.values()),
        formatter_class=_Help,
    )
    result.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
        description = textwrap.fill(f"{summary[0].upper()}{summary[1:]}. {more}", 80)
        example = f"example:\n  {EXAMPLES[name]}"
        return commands.add_parser(name, help=summary, description=description, epilog=example, formatter_class=_Help)

    command = add("demo", "train a small network, plain and mixed, with right and wrong labels, and compare")
    command.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder for the pictures")
    command.add_argument("--data", choices=tuple(PIXELS), default="digits")
    command.add_argument("--root", type=Path, default=Path("data"), help="folder of the data; digits need none")
    command.add_argument("--epochs", type=_whole(1), help="of each run; default: 30 for digits, else 5")
    command.add_argument("--runs", type=_whole(1), help="with different seeds; default: 3 for digits, else 1")
    noise = "share of wrong training labels"
    command.add_argument("--label-noise", nargs="+", type=_share, default=[0.0, 0.4], metavar="SHARE", help=noise)
    command.add_argument("--workers", type=_whole(0, PARALLEL), default=2, help="processes that load data")
    command.add_argument("--seed", type=_whole(*SEEDS), default=0, help="seed of the first run")
    command.add_argument("--device", type=_device, default="auto", help="auto: the GPU if there is one")

    _add_comparison(add("compare", "train with several methods and seeds, and compare", _COMPARE))

    command = add("preview", "draw what the methods do to pictures", _PREVIEW)
    command.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="default: some of scikit-image's")
    command.add_argument(
        "--transform", "--method", default="all", help="all methods, a name (mixup, deit, article, ...), or Python"
    )
    command.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG or JPEG")
    command.add_argument("--seed", type=_whole(*SEEDS), default=0, help="seed of the draws")
    command.add_argument(
        "--size", type=_whole(1, LARGE), default=224, help="crop and scale pictures to a square of this size"
    )

    add("bench", "run the benchmarks of a checkout", _BENCH)
    add("env", "print versions, devices, and which implementation mixes here and why")
    return result


_COMPARE = (
    "Runs all combinations of methods, lengths, starts and shares, seed by seed. A method is plain, a name (cutmix, "
    "deit, article, ...) or Python such as MixUp(alpha=8). Rows are appended to --out as they finish."
)
_PREVIEW = (
    "Images are two or more files, a folder of pictures, or a folder with one folder for each class; of a folder, at "
    "most twelve are drawn. Two pictures with --transform article --seed 2 reproduce the picture of the articles on "
    "mixup: each mixed with the other at the share that was drawn (with half of the seeds, a random permutation of two "
    "leaves them as they are)."
)
_BENCH = (
    "Runs benchmarks/ with pytest-benchmark, compares mixcollate with the fastest alternative, and writes the results "
    "and pictures of them to a new folder in bench/ of the current directory. All arguments are passed to pytest. "
    "pytest-benchmark also prints its own tables if one of its options is given: --benchmark-columns=min,median"
)


def _add_comparison(command: argparse.ArgumentParser) -> None:
    take = command.add_argument
    take(
        "--out",
        type=Path,
        default=Path("compare/results.jsonl"),
        metavar="FILE",
        help="JSON lines; new rows are appended",
    )
    take(
        "--like", choices=("article",), action=_Like, help="repeat the article's experiment; later options override it"
    )
    take("--data", choices=tuple(PIXELS), default="digits", help="images to train on")
    take("--root", type=Path, default=Path("data"), help="folder of the data; digits need none")
    take(
        "--methods", nargs="+", default=["plain", "mixup", "cutmix"], metavar="METHOD", help="plain, a name, or Python"
    )
    take("--seeds", nargs="+", type=_whole(*SEEDS), default=[0, 1, 2], metavar="SEED", help="a run for each of them")
    take("--epochs", nargs="+", type=_whole(1), default=[40], help="one or more lengths of training")
    take("--label-noise", nargs="+", type=_share, default=[0.0], metavar="SHARE", help="share of wrong training labels")
    take("--share", nargs="+", type=_positive_share, default=[1.0], help="share of the training images to use")
    take("--start", nargs="+", choices=STARTS, default=["random"], help="what training starts from")
    take(
        "--pretrained", dest="start", action="store_const", const=["pretrained"], help="the same as --start pretrained"
    )
    take("--start-epochs", type=_whole(1), default=20, help="length of the training that --start needs")
    take("--classes", choices=("all", "second-half"), default="all", help="classes to train on and to test with")
    take("--architecture", choices=tuple(ARCHITECTURES), default="small", help="network to train")
    take("--pixels", type=_whole(0, LARGE), default=0, help="height and width of the images; 0: the data's own")
    take("--warm-up", type=_whole(0), default=0, metavar="EPOCHS", help="epochs of plain images before mixing starts")
    take("--off-epoch", type=int, metavar="EPOCH", help="epoch at which mixing ends; negative: counted from the end")
    take("--batch-size", type=_batch_size, default=0, help="0: the data's own")
    take("--learning-rate", type=_rate, default=0.0, help="peak learning rate; 0: the architecture's own")
    take("--points", type=_whole(1), default=1, help="how often to measure accuracy during training")
    take("--workers", type=_whole(0, PARALLEL), default=0, help="processes that load data")
    take("--threads", type=_whole(0, PARALLEL), default=0, help="CPU threads of torch; 0: as many as it takes itself")
    take("--device", type=_device, default="auto", help="auto: the GPU if there is one")


class _Like(argparse.Action):
    """Sets the options of an experiment; later ones override them."""

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
        torch.zeros(1, device=device).tolist()  # fails if it is missing, or holds no values (meta)
    # whatever a missing backend raises
    except (ValueError, RuntimeError, AssertionError, ImportError) as error:
        message = f"must be a device that torch can use here, got {text!r}; auto uses the GPU if there is one"
        raise argparse.ArgumentTypeError(message) from error
    return device


def bench(arguments: Sequence[str]) -> None:
    """Run the benchmarks of a checkout with these arguments for pytest; print, save and plot the results."""
    import pytest_benchmark  # noqa: F401  # fail now if it is missing

    root = Path(__file__).parents[2]
    if not (root / "benchmarks").is_dir():
        raise Refusal(
            "the benchmarks are not part of the installed package; "
            "clone the repository, pip install -e '.[bench]', and run it there"
        )
    paths = [Path(os.path.normpath(root / argument.partition("::")[0])) for argument in arguments]
    named = any(path.is_relative_to(root / "benchmarks") and os.path.exists(path) for path in paths)
    command = [sys.executable, "-m", "pytest", "-o", "python_files=bench_*.py", "--benchmark-enable"]
    command += ["-W", "ignore"]  # warnings of a peer, or about an empty selection, are not failures
    if not any(re.match("--benchmark-(?!json)", argument) for argument in arguments):
        command.append("--benchmark-quiet")  # our own table is shorter
    takes = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    takes.add_argument("--benchmark-json")
    # they print more than ASCII, too; a stream of text, such as io.StringIO, has no encoding
    environment = {**os.environ, "PYTHONIOENCODING": f"{sys.stdout.encoding or ''}:replace"}
    out = Path("bench", time.strftime("%Y-%m-%d-%H%M%S")).absolute()
    with tempfile.TemporaryDirectory() as folder:
        raw = root / (takes.parse_known_args(arguments)[0].benchmark_json or Path(folder, "raw.json"))
        before = raw.stat().st_mtime_ns if raw.exists() else None
        command += [f"--benchmark-json={raw}", *arguments, *([] if named else ["benchmarks"])]
        status = subprocess.run(command, cwd=root, env=environment).returncode
        # pytest leaves it empty, or unchanged, if nothing was measured
        if raw.exists() and raw.stat().st_mtime_ns != before and raw.stat().st_size:
            report = [sys.executable, "-m", "benchmarks.report", "condense", "--plot", f"--out={out}", str(raw)]
            reported = subprocess.run(report, cwd=root, env=environment).returncode  # after a failure too
            status = status or reported
    raise SystemExit(status)
