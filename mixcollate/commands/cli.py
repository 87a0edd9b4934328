"""The command line: ``mixcollate demo | compare | preview | bench | env``."""

import argparse
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from mixcollate import methods
from mixcollate.commands.compare import compare, runs_of
from mixcollate.commands.data import PIXELS
from mixcollate.commands.networks import ARCHITECTURES
from mixcollate.commands.preview import preview
from mixcollate.commands.training import STARTS
from mixcollate.kernels.support import c_compiler, python_header

EXTRA = ("rich", "sklearn", "skimage", "pytest", "pytest_benchmark")
"""What only the commands need: imported by the command that does."""

# Each image is changed, so that it can be seen, where the default of p is less.
METHODS = {name.lower(): (name, method(p=1)) for name, method in methods.ALL.items()}
PICTURES = {
    "cat": "chelsea",
    "coffee": "coffee",
    "astronaut": "astronaut",
    "rocket": "rocket",
    "eye": "retina",
    "camera": "camera",
}
"""What is drawn when no pictures are given, and what scikit-image calls it: all in the public domain."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments``; default: those of this process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    passed_on: list[str] = []
    if given[:1] == ["bench"] and given[1:] not in (["-h"], ["--help"]):
        given, passed_on = given[:1], given[1:]  # all of them are pytest's
    program = parser()
    options = program.parse_args(given)
    try:
        if options.command == "demo":
            from mixcollate.commands.demo import demo

            demo(options)
        elif options.command == "compare":
            try:
                runs = runs_of(options)
            except ValueError as error:
                program.error(f"compare: {error}")
            compare(runs, options)
        elif options.command == "preview":
            draw(options.images, method=options.method, out=options.out, seed=options.seed, size=options.size)
        elif options.command == "bench":
            bench(passed_on)
        else:
            env()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        raise SystemExit(
            f'mixcollate {options.command} needs {missing}, which is missing: pip install "mixcollate[cli]"'
        ) from error


def parser() -> argparse.ArgumentParser:
    """What the commands take."""
    result = argparse.ArgumentParser("mixcollate", description="mixup and its relatives on the device.")
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    defaults = argparse.ArgumentDefaultsHelpFormatter

    command = commands.add_parser(
        "demo", help="train a small network, plain and mixed, and compare", formatter_class=defaults
    )
    command.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where the picture goes")
    command.add_argument(
        "--data", choices=("digits", "fashion-mnist", "cifar10", "cifar100", "imagefolder"), default="digits"
    )
    command.add_argument("--root", type=Path, default=Path("data"), help="where the data lie; digits need none")
    command.add_argument("--epochs", type=_at_least(1), help="of each run (default: 30 for digits, else 5)")
    command.add_argument("--runs", type=_at_least(1), help="with different seeds (default: 3 for digits, else 1)")
    command.add_argument(
        "--label-noise", nargs="+", type=_share, default=[0.0, 0.4], metavar="SHARE", help="one or several"
    )
    command.add_argument("--workers", type=_at_least(0), default=2, help="processes that load data")
    command.add_argument("--seed", type=_at_least(0), default=0, help="of the first run")
    command.add_argument("--device", default="auto", help="auto: the GPU if there is one")

    command = commands.add_parser(
        "compare", help="train with several methods and seeds, and compare", formatter_class=defaults
    )
    _add_comparison(command)

    command = commands.add_parser("preview", help="draw what the methods do to pictures", formatter_class=defaults)
    command.add_argument(
        "images", nargs="*", type=Path, metavar="IMAGE", help="two or more; default: some of scikit-image's"
    )
    command.add_argument("--method", choices=(*METHODS, "all"), default="all")
    command.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG or JPEG")
    command.add_argument("--seed", type=_at_least(0), default=0)
    command.add_argument(
        "--size", type=_at_least(1), default=224, help="pictures are cropped and scaled to this square"
    )

    commands.add_parser(
        "bench",
        help="run the benchmarks of a checkout",
        description="Runs benchmarks/ with pytest-benchmark; prints how we compare with the fastest other, and writes "
        "the results and pictures of them to a new folder in bench/ of the current directory. All arguments are "
        "pytest's: mixcollate bench -k naive. pytest-benchmark prints its own tables too if one of its options asks "
        "for something: --benchmark-columns=min,median",
    )
    commands.add_parser("env", help="print versions and devices, for a bug report")
    return result


def _add_comparison(command: argparse.ArgumentParser) -> None:
    take = command.add_argument
    take(
        "--out",
        type=Path,
        default=Path("compare/results.jsonl"),
        metavar="FILE",
        help="JSON lines; what is there stays",
    )
    take("--data", choices=tuple(PIXELS), default="digits")
    take("--root", type=Path, default=Path("data"), help="where the data lie; digits need none")
    take(
        "--methods", nargs="+", default=["plain", "mixup", "cutmix"], metavar="METHOD", help="plain, a name, or Python"
    )
    take("--seeds", nargs="+", type=_at_least(0), default=[0, 1, 2], metavar="SEED")
    take("--epochs", nargs="+", type=_at_least(1), default=[40], help="one or several lengths of training")
    take("--label-noise", nargs="+", type=_share, default=[0.0], metavar="SHARE", help="of the training labels")
    take("--share", nargs="+", type=_positive_share, default=[1.0], help="of the training images")
    take("--start", nargs="+", choices=STARTS, default=["random"], help="what training begins from")
    take("--start-epochs", type=_at_least(1), default=20, help="plain, on the first half of the classes")
    take("--classes", choices=("all", "second-half"), default="all")
    take("--architecture", choices=tuple(ARCHITECTURES), default="small")
    take("--pixels", type=_at_least(0), default=0, help="height and width of the images; 0: the data's own")
    take("--warm-up", type=_at_least(0), default=0, metavar="EPOCHS", help="of plain images before mixing begins")
    take("--off-epoch", type=int, metavar="EPOCH", help="when mixing ends; negative: counted from the end")
    take("--batch-size", type=_at_least(0), default=0, help="0: the data's own")
    take("--learning-rate", type=float, default=0.0, help="at the top of its cycle; 0: the architecture's own")
    take("--points", type=_at_least(1), default=1, help="at which accuracy is measured along the way")
    take("--workers", type=_at_least(0), default=0, help="processes that load data")
    take("--threads", type=_at_least(0), default=0, help="of torch on the CPU; 0: all cores")
    take("--device", default="auto", help="auto: the GPU if there is one")


def _positive_share(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be in (0, 1], got {text}")
    return float(text)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return float(text)


def _at_least(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return int(text)

    return count


def draw(paths: Sequence[Path], *, method: str, out: Path, seed: int, size: int) -> None:
    """Write a contact sheet of one method or all of them."""
    pictures = [(path.stem, _read(path)) for path in paths] or _sample_pictures()
    if len(pictures) < 2:
        raise SystemExit(f"mixcollate preview: IMAGES must be two or more, to be mixed with each other, got {paths[0]}")
    images = torch.stack([_square(picture, size) for _, picture in pictures])
    chosen = dict(METHODS.values()) if method == "all" else dict([METHODS[method]])
    sheet = preview(images, chosen, names=[name for name, _ in pictures], seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        sheet.save(out, optimize=True, quality=85)
    except ValueError as error:
        raise SystemExit(f"mixcollate preview: --out must end in .png or .jpg, got {out}") from error
    print(f"{out}: {sheet.width}×{sheet.height} pixels, {out.stat().st_size // 1024} kB")


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (FileNotFoundError, IsADirectoryError, UnidentifiedImageError) as error:
        raise SystemExit(f"mixcollate preview: IMAGES must be pictures, got {path} ({error})") from error


def _sample_pictures() -> list[tuple[str, Image.Image]]:
    from skimage import data

    return [(name, Image.fromarray(getattr(data, picture)()).convert("RGB")) for name, picture in PICTURES.items()]


def _square(picture: Image.Image, size: int) -> Tensor:
    """``[3, size, size]`` uint8: the middle of the picture."""
    return functional.pil_to_tensor(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS))


def bench(arguments: Sequence[str]) -> None:
    """Run the benchmarks of a checkout with these arguments for pytest; print, keep and draw what they measured."""
    import pytest_benchmark  # noqa: F401  # to be told now if it is missing

    root = Path(__file__).parents[2]
    if not (root / "benchmarks").is_dir():
        raise SystemExit(
            "mixcollate bench: the benchmarks are not part of the installed package; "
            "clone the repository, pip install -e '.[bench]', and run it there"
        )
    named = any((root / argument.partition("::")[0]).exists() for argument in arguments)
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


def env() -> None:
    """Print what a bug report should say about this machine."""
    facts = {
        "mixcollate": _version("mixcollate"),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda})",
        **{name: _version(name) for name in ("torchvision", "numpy", "pillow", "triton", "numba", "timm")},
        "C compiler": _c_compiler(),
        "Python.h": python_header() or "not found; Triton needs it (python3-dev)",
        "CPU": f"{os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads",
        "GPU": _gpus(),
        "TRITON_INTERPRET": os.environ.get("TRITON_INTERPRET", "not set"),
    }
    for name, value in facts.items():
        print(f"{name + ':':18}{value}")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _c_compiler() -> str:
    """The one that Triton builds its launchers with, and its version."""
    path = c_compiler()
    if path is None:
        return "not found; Triton needs gcc, clang or CC"
    told = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    return told.partition("\n")[0] or path


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use" if torch.version.cuda else "none: this torch is built without CUDA"
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return "; ".join(f"{gpu.name} (sm_{gpu.major}{gpu.minor}, {gpu.total_memory / 2**30:.0f} GiB)" for gpu in found)
