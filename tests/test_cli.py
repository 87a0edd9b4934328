"""The commands: what they print, what they write, and what they say when something is missing."""

import contextlib
import gzip
import importlib.util
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

import mixcollate
from benchmarks.results import RESULTS
from mixcollate.commands import Refusal, cli, compare, demo, environment, pictures, plots
from mixcollate.commands.calibration import calibration_error, reliability
from mixcollate.commands.cli import main
from mixcollate.commands.data import load
from mixcollate.commands.training import Run, data_of, judge
from mixcollate.kernels import support
from mixcollate.stream import Stream

HUGE = "9" * 30
QUICK = ["--epochs", "1", "--runs", "1", "--workers", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo takes all cores; here it must not, nor leave it so."""
    before = torch.get_num_threads()
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr(demo.images_per_second, "__defaults__", (1, 0.01))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real pictures, of different sizes and modes."""
    folder = tmp_path_factory.mktemp("pictures")
    named = dict(pictures._samples())
    named["coffee"].resize((90, 60)).save(folder / "coffee.jpg")
    named["cat"].resize((60, 75)).convert("L").save(folder / "cat.png")
    named["rocket"].resize((64, 64)).convert("RGBA").save(folder / "rocket.png")
    return sorted(folder.iterdir())


@pytest.mark.slow  # trains in a process of its own, with workers
def test_demo_as_a_user_runs_it(tmp_path):
    out = tmp_path / "new" / "folder"
    options = ["--epochs", "2", "--runs", "2", "--label-noise", "0.4", "--out", str(out)]
    command = [sys.executable, "-m", "mixcollate", "demo", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    assert done.stderr == ""
    for words in ("898 images to train, 899 to test", "2 workers", "plain", "accuracy", "±", "With 40% wrong labels"):
        assert words in " ".join(done.stdout.split())
    for name in ("mixed", "accuracy", "calibration"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 600


@pytest.mark.slow  # trains until something is learnt
def test_demo_learns_with_equal_seeds_and_schedules(tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(demo, "verdict", lambda given: rows.extend(given) or [])
    settings = "--epochs 6 --runs 2 --seed 7 --label-noise 0 --out"
    main(["demo", *QUICK[4:], *settings.split(), str(tmp_path)])
    assert [(row["run"]["seed"], row["run"]["method"]) for row in rows] == [
        (seed, method) for seed in (7, 8) for method in ("plain", "mixup-or-cutmix")
    ]
    assert all(row["outcome"]["accuracy"] > 60 and len(row["outcome"]["curve"]) == 6 for row in rows)
    assert rows[1]["outcome"]["confidence"] < rows[0]["outcome"]["confidence"] - 5  # soft labels


def test_demo_on_fashion_mnist_files(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for part, count in (("train", 96), ("t10k", 40)):
        images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images.tobytes()))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels.tobytes()))
    data = load("fashion-mnist", tmp_path, 28)
    image, label = data.test[39]
    assert torch.equal(image[0], torch.from_numpy(images[39]))
    assert (int(label), data.classes[9]) == (9, "Ankle boot")
    main(["demo", "--data", "fashion-mnist", "--root", str(tmp_path), *QUICK, "--out", str(tmp_path / "out")])
    assert "96 images to train, 40 to test, 10 classes; 1 × 1 epochs" in " ".join(capsys.readouterr().out.split())


def test_brackets_in_paths_are_printed_too(tmp_path, capsys):
    """Rich would take them for a style."""
    folder = tmp_path / "runs [old]"
    options = ["--methods", "plain", "--epochs", "1", "--seeds", "0", "--share", "0.05", "--threads", "1"]
    main(["compare", *options, "--out", str(folder / "rows.jsonl")])
    assert f"Rows: {folder / 'rows.jsonl'}; to repeat: mixcollate compare" in (printed := capsys.readouterr().out)
    assert f"A picture: {folder / 'rows-calibration.png'}" in printed


class Stored:
    """What torchvision's sets look like, which check the files on the disk."""

    classes = ("even", "odd")
    shape = (32, 32, 3)

    def __init__(self, root, train, transform):
        count = 6 if train else 4
        self.transform, self.targets = transform, torch.arange(count) % 2
        levels = torch.linspace(0, 255, int(np.prod(self.shape))).view(self.shape)
        self.data = (levels + torch.arange(count).view(-1, *[1] * levels.ndim)).clamp(max=255).byte()

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.data[index].numpy())), int(self.targets[index])


@pytest.mark.parametrize("pixels", [32, 16])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_stored_images_are_augmented_for_training_alone(monkeypatch, name, pixels):
    monkeypatch.setattr(f"torchvision.datasets.{name.upper()}", Stored)
    data = load(name, Path("nowhere"), pixels)
    assert (len(data.train), len(data.test), data.classes) == (6, 4, Stored.classes)
    first, *others = (data.train[1][0] for _ in range(20))
    assert first.shape == (3, pixels, pixels) and any(not torch.equal(first, other) for other in others)
    image, label = data.test[1]
    stored = Image.fromarray(data.test.data[1].numpy()).resize((pixels, pixels), Image.Resampling.BILINEAR)
    assert label == 1 and (image.int() - pil_to_tensor(stored).int()).abs().max() <= 1


def test_stored_fashion_mnist(monkeypatch):
    grey = type("Grey", (Stored,), {"shape": (28, 28)})
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", grey)
    whole, half = (load("fashion-mnist", Path("nowhere"), pixels) for pixels in (28, 14))
    assert (len(half.train), len(half.test), half.classes) == (6, 4, Stored.classes)
    stored = grey("nowhere", False, None).data[3][None]
    assert whole.test[3][1] == half.test[3][1] == 1 and torch.equal(whole.test[3][0], stored)
    assert torch.equal(half.test[3][0], torch.nn.functional.avg_pool2d(stored.float(), 2).round().byte())


@pytest.mark.parametrize("split", [True, False], ids=["train and val", "one folder"])
def test_demo_on_an_image_folder(tmp_path, capsys, photographs, split):
    root = tmp_path / "root"
    for folder in ("train", "val") if split else (".",):
        for path in photographs:
            for number in range(5):
                (root / folder / path.stem).mkdir(parents=True, exist_ok=True)
                (root / folder / path.stem / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    main(["demo", "--data", "imagefolder", "--root", str(root), *QUICK, "--out", str(tmp_path / "out")])
    counts = "15 images to train, 15 to test" if split else "12 images to train, 3 to test"
    assert f"{counts}, 3 classes" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "out" / "mixed.png").exists()


@pytest.mark.parametrize("folders", [("train", "val"), ("train", "test"), (".",)])
def test_pictures_are_augmented_for_training_alone(tmp_path, photographs, folders):
    for path in [tmp_path / folder / name for folder in folders for name in ("cats", "dogs")]:
        path.mkdir(parents=True)
        for number in range(5):
            (path / f"{number}.jpg").write_bytes(photographs[1].read_bytes())
    data = load("imagefolder", tmp_path, 32)
    assert (len(data.train), len(data.test)) == ((8, 2) if folders == (".",) else (10, 10))
    versions = ({part[0][0].numpy().tobytes() for _ in range(9)} for part in (data.train, data.test))
    assert [len(one) > 1 for one in versions] == [True, False]


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("cifar10", "get it with: python -c .*CIFAR10"),
        ("cifar100", "get it with: python -c .*CIFAR100"),
        ("fashion-mnist", "FashionMNIST.*or pass the folder with the four .gz files"),
        ("imagefolder", "it must contain a folder for each class, or train and val"),
    ],
)
def test_missing_data(tmp_path, capsys, name, way_out):
    assert re.search(f"in --root .*{way_out}", refused(capsys, "demo", "--data", name, "--root", str(tmp_path), *QUICK))


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(bytes(5000))[:-9],
        gzip.compress(bytes(5000)),
        gzip.compress(bytes(16 + 28 * 28)),
        gzip.compress(b""),
        gzip.compress(bytes(5000))[:10] + b"?" * 50,
        b"no gzip",
    ],
    ids=["torn", "odd", "labels missing", "empty", "garbled", "other"],
)
def test_broken_fashion_mnist_files(tmp_path, capsys, content):
    for part in ("train", "t10k"):
        for name in (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"):
            (tmp_path / name).write_bytes(content)
    assert "cannot be read" in refused(capsys, "demo", "--data", "fashion-mnist", "--root", str(tmp_path), *QUICK)


def test_calibration_error_by_hand():
    """Bins of 1/15: two predictions at 0.61 and 0.65 share one (one is right), 0.9 and 1.0 have one each."""
    probabilities = torch.tensor([[0.61, 0.39], [0.65, 0.35], [0.1, 0.9], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0])
    expected = (abs(0.61 + 0.65 - 1) + abs(0.9 - 1) + abs(1.0 - 0)) / 4
    assert calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)
    assert reliability(probabilities, labels).shape == (15, 3)


def outcome(accuracy: float, confidence: float) -> dict[str, float]:
    errors = {"calibration_error": abs(accuracy - confidence), "tempered_calibration_error": 1.25}
    return {"accuracy": accuracy, "confidence": confidence, **errors}


@pytest.mark.parametrize(
    ("gains", "sentence"),
    [
        ([0.5], r"right labels.* by \+0.5 points; a single run says little \(--runs 3"),
        ([0.5, -0.1, 0.3], r"by \+0.2 \[-0.5, \+1.0\] points: the interval contains 0, so this is no evidence"),
        ([-0.5, -0.6, -0.4], r"by -0.5 \[-0.7, -0.3\] points: it hurt"),
        ([12, 10, 11], r"by \+11.0 \[\+8.5, \+13.5\] points: it helped"),
    ],
)
def test_verdict_says_what_was_measured(gains, sentence):
    rows = []
    for seed, gain in enumerate(gains):
        for method, accuracy, confidence in (("plain", 80, 85), ("mixup", 80 + gain, 60)):
            run = asdict(Run(method=method, seed=seed))
            rows.append({"run": run, "outcome": outcome(accuracy, confidence)})
    first, last = demo.verdict(rows)
    assert re.search(sentence, first)
    assert "underconfident" in last and re.search(r"from \d+\.\d.* to 1\.2", last)
    for row in rows:
        row["outcome"]["confidence"] = 99
    assert len(demo.verdict(rows)) == 1


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said when these arguments are refused: one line, no traceback, status 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"mixcollate {arguments[0]}: ")
    assert "Traceback" not in message and message.count("\n") == 1
    return message


def test_preview_of_own_pictures(tmp_path, capsys, photographs):
    out = tmp_path / "new" / "ricap.png"
    main(["preview", *map(str, photographs), "--method", "ricap", "--out", str(out), "--size", "64"])
    with Image.open(out) as picture:
        assert f"{picture.width}×{picture.height} pixels" in capsys.readouterr().out
        assert picture.width == 2 * 20 + 3 * 160 + 2 * 14


def test_preview_of_all_methods(tmp_path):
    for seed, name in ((1, "a.jpg"), (1, "b.jpg"), (2, "c.jpg")):
        main(["preview", "--out", str(tmp_path / name), "--seed", str(seed), "--size", "96"])
    first, again, other = ((tmp_path / name).read_bytes() for name in ("a.jpg", "b.jpg", "c.jpg"))
    assert first == again != other
    assert len(first) < 500_000


@pytest.mark.parametrize("method", pictures.ALL)
def test_preview_changes_every_image(photographs, method):
    """A method that shows nothing would be a poor preview: p is 1, but for Hide-and-Seek's cells of size 0."""
    ((title, transform),) = pictures.titled(method.lower()).items()
    images = torch.stack([pictures._square(pictures.read(path), 64) for path in [*photographs, photographs[0]]])
    assert title == type(transform).__name__ == method
    changed = [
        (transform.replay(images, None, transform.make_plan(images)) != images).flatten(1).any(1) for _ in range(20)
    ]
    assert float(torch.stack(changed).double().mean()) > 0.6


def sheet(monkeypatch, *arguments):
    """What ``mixcollate preview`` draws: images, transforms, labels and class names."""
    drawn = {}

    def instead(images, transforms, **options):
        drawn.update(options, images=images, transforms=transforms)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(pictures, "preview", instead)
    main(["preview", *map(str, arguments)])
    return drawn


def test_preview_of_a_transform_as_python_would_write_it(tmp_path, monkeypatch, photographs):
    text = "RandomChoice([MixUp(alpha=0.8), CutMix()])"
    drawn = sheet(monkeypatch, *photographs, "--transform", text, "--out", tmp_path / "a.png")
    ((title, transform),) = drawn["transforms"].items()
    assert title == text and [one.alpha for one in transform.transforms] == [0.8, 1.0]
    assert list(sheet(monkeypatch, *photographs, "--transform", "deit", "--out", tmp_path / "a.png")["transforms"]) == [
        "deit"
    ]


def test_preview_of_folders_takes_their_names_as_classes(tmp_path, monkeypatch, photographs):
    for number, path in enumerate(photographs):
        for folder in ("cats", "dogs") if number else ("cats",):
            (tmp_path / "tree" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / folder / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tree" / "cats" / "notes.txt").write_text("no picture")
    drawn = sheet(monkeypatch, tmp_path / "tree", "--out", tmp_path / "a.png")
    assert drawn["names"] == ["cats", "dogs"] and drawn["labels"].tolist() == [0, 1, 0, 1, 0]
    flat = sheet(monkeypatch, tmp_path / "tree" / "cats", "--out", tmp_path / "a.png")
    assert flat["names"] == ["cat", "coffee", "rocket"] and flat["labels"].tolist() == [0, 1, 2]


def test_the_articles_picture(tmp_path, photographs):
    """Two pictures, mixed with each other at one drawn share and at what is left of it."""
    command = ["--transform", "article", "--seed", "2", "--out", str(tmp_path / "a.png")]
    main(["preview", *map(str, photographs[:2]), *command])
    images = torch.stack([torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 200)])
    plan = pictures.titled("article")["article"].make_plan(images, stream=Stream(2))
    assert plan.partner.tolist() == [1, 0] and plan.own_share[0] == plan.own_share[1]


def test_preview_reads_what_pictures_there_are(tmp_path):
    """16 bits, CMYK, a palette, a turned camera, one pixel, and a name that is no text."""
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    Image.fromarray(levels.astype(np.uint16)).save(tmp_path / "deep.png")
    deep = np.asarray(pictures.read(tmp_path / "deep.png"), int)
    assert np.abs(deep[..., 0] - levels / 257).max() <= 1
    Image.fromarray((levels / 65535).astype(np.float32)).save(tmp_path / "float.tiff")
    assert np.abs(np.asarray(pictures.read(tmp_path / "float.tiff"), int)[..., 0] - levels / 257).max() <= 1
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert pictures.read(tmp_path / "cmyk.jpg").getpixel((4, 4))[0] > 200
    Image.new("P", (8, 8), 1).save(tmp_path / "palette.png")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "pixel.png")
    turned = Image.new("RGB", (20, 10))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    assert pictures.read(tmp_path / "turned.jpg").size == (10, 20)
    odd = os.fsencode(tmp_path) + b"/\xff\n\x1b[31m.png"
    with open(odd, "wb") as file:
        Image.new("RGB", (8, 8), "blue").save(file, "PNG")
    found = sorted(map(str, tmp_path.iterdir()))
    main(["preview", *found, "--transform", "mixup", "--out", str(tmp_path / "sheet.png")])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are no pictures, or should not be read."""
    folder = tmp_path_factory.mktemp("hostile")
    whole = folder / "whole.jpg"
    Image.effect_noise((64, 64), 50).save(whole)
    (folder / "truncated.jpg").write_bytes(whole.read_bytes()[:400])
    for name, side in (("bomb", 50_000), ("warned", 12_000)):  # of the smaller, Pillow only warns
        chunks = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0", b"IDAT" + zlib.compress(bytes(100))
        packed = [(len(one) - 4).to_bytes(4, "big") + one + zlib.crc32(one).to_bytes(4, "big") for one in chunks]
        (folder / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    (folder / "broken.png").write_bytes((folder / "bomb.png").read_bytes()[:20] + b"?" * 40)
    (folder / "empty.png").write_bytes(b"")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "text.png").write_text("no picture")
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("truncated.jpg", "truncated"),
        ("bomb.png", "decompression bomb"),
        ("warned.png", "decompression bomb"),
        ("broken.png", ""),
        ("empty.png", "cannot identify"),
        ("loop.png", "Too many levels of symbolic links"),
        ("text.png", "cannot identify"),
        ("none.png", "No such file"),
        ("folder", "or folders that contain some"),
    ],
)
def test_hostile_pictures_are_refused(tmp_path, capsys, hostile, name, why):
    message = refused(
        capsys, "preview", str(hostile / "whole.jpg"), str(hostile / name), "--out", str(tmp_path / "a.png")
    )
    assert "IMAGES must be pictures" in message and name in message and why in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", ["0", "1"])
def test_hostile_pictures_end_a_demo(tmp_path, capsys, hostile, workers):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for file in ("whole.jpg", "truncated.jpg"):
            (tmp_path / "train" / name / f"2{file}").write_bytes((hostile / file).read_bytes())
            (tmp_path / "train" / name / file).write_bytes((hostile / file).read_bytes())
    options = ["--data", "imagefolder", "--root", str(tmp_path / "train"), *QUICK[:4], "--workers", workers]
    assert "truncated.jpg (image file is truncated" in refused(capsys, "demo", *options, "--out", str(tmp_path))


def test_a_tree_that_holds_itself_is_refused(tmp_path, capsys, photographs):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.png").write_bytes(photographs[0].read_bytes())
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    message = refused(capsys, "demo", "--data", "imagefolder", "--root", str(tmp_path), *QUICK)
    assert "must not contain links to its parent folders" in message


def test_a_root_may_lead_through_its_own_folders(tmp_path, photographs):
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(8):
            (tmp_path / name / f"{number}.png").write_bytes(photographs[0].read_bytes())
    assert list(load("imagefolder", tmp_path / "a" / "..", 16).classes) == ["a", "b"]


def test_pictures_that_are_too_few_to_test_on_are_refused(tmp_path, capsys, photographs):
    for name in "abcd":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(photographs[0].read_bytes())
    message = refused(capsys, "demo", "--data", "imagefolder", "--root", str(tmp_path), *QUICK)
    assert "--root must hold five pictures or more, to test on a fifth of them, got 4" in message


@pytest.mark.parametrize("tested", ["ac", "abcd", "abd"])
def test_folders_of_other_classes_are_refused(tmp_path, capsys, photographs, tested):
    """Their pictures would count for the classes that have their numbers in training."""
    for folder, names in (("train", "abc"), ("val", tested)):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "a.png").write_bytes(photographs[0].read_bytes())
    message = refused(capsys, "demo", "--data", "imagefolder", "--root", str(tmp_path), *QUICK)
    other = sorted(set("abc") ^ set(tested))
    assert f"--root must hold the same classes in train and val, got {other} in one of them only" in message


def test_preview_errors(tmp_path, capsys, photographs):
    cat, other = map(str, photographs[:2])
    assert "IMAGES must be two or more" in refused(capsys, "preview", cat)
    assert "--out must end in .png or .jpg, got" in refused(
        capsys, "preview", cat, other, "--out", str(tmp_path / "x.what")
    )
    assert "one of cutmix" in refused(capsys, "preview", cat, other, "--transform", "smoothmix")
    (tmp_path / "file").write_text("in the way")
    assert "can be written" in refused(capsys, "preview", cat, other, "--out", str(tmp_path / "file" / "x.png"))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Somewhere to run tiny benchmarks from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_SCALE", "tiny")
    monkeypatch.setenv("BENCH_DEVICE", "cpu")
    return tmp_path


@pytest.mark.slow  # runs pytest in a process
def test_bench_as_a_user_runs_it(tiny, capfd):
    committed = sorted(RESULTS.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(["bench", "-q", "benchmarks/bench_naive.py"])
    assert ended.value.code == 0
    printed = capfd.readouterr().out
    assert "naive: How much faster" in printed and "against" in printed and "Outliers" not in printed
    (folder,) = (tiny / "bench").iterdir()
    assert {path.name for path in folder.glob("*.png")} == {"fastest-cpu.png"}
    assert f"picture: {folder / 'fastest-cpu.png'}" in printed
    assert f"results: {next(folder.glob('cpu-*.json'))}" in printed
    with Image.open(folder / "fastest-cpu.png") as picture:
        assert picture.width > 800
    assert sorted(RESULTS.iterdir()) == committed


@pytest.mark.slow  # runs pytest in a process
def test_bench_leaves_pytest_benchmark_what_it_is_asked(tiny, capfd):
    """Its file, and its table."""
    raw = str(tiny / "raw.json")
    with pytest.raises(SystemExit) as ended:
        main(["bench", "-q", "--benchmark-json", raw, "--benchmark-columns=median", "-k", "test_collate_and_mix"])
    assert ended.value.code == 0
    printed = capfd.readouterr().out
    assert "Name (time in" in printed and "results: " in printed
    assert json.loads((tiny / "raw.json").read_text())["benchmarks"]


@pytest.mark.parametrize(
    ("status", "measured", "reported", "expected"),
    [(1, True, 0, 1), (4, False, 0, 4), (5, False, 1, 5), (0, True, 1, 1), (0, True, 0, 0)],
)
def test_bench_ends_as_pytest_does(tiny, monkeypatch, status, measured, reported, expected):
    """What was measured before a failure is shown; nothing, where nothing was; an old file is not shown as new."""
    commands = []
    raw = tiny / "raw.json"
    raw.write_text("old")
    os.utime(raw, (0, 0))

    def run(command, cwd, env):
        commands.append(command)
        if measured and "pytest" in command:
            raw.write_text("new")
        return subprocess.CompletedProcess(command, status if "pytest" in command else reported)

    monkeypatch.setattr(cli.subprocess, "run", run)
    with pytest.raises(SystemExit) as ended:
        main(["bench", f"--benchmark-json={raw}"])
    assert ended.value.code == expected
    assert [command[2] for command in commands] == ["pytest", "benchmarks.report"][: 1 + measured]
    assert {"benchmarks", "--benchmark-quiet"} <= set(commands[0])
    assert not measured or commands[1][-1] == str(raw)


@pytest.mark.slow  # runs pytest in a process
def test_bench_passes_its_arguments_to_pytest(tiny, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "benchmarks/bench_naive.py", "--collect-only", "-q", "-k", "equal_work"])
    assert ended.value.code == 0
    printed = capfd.readouterr().out
    assert "bench_naive.py::test_equal_work" in printed and "bench_peers" not in printed
    assert list(tiny.iterdir()) == []  # nothing was measured


def test_bench_takes_expressions_that_are_longer_than_file_names(tiny, monkeypatch):
    monkeypatch.setattr(cli.subprocess, "run", lambda command, cwd, env: subprocess.CompletedProcess(command, 5))
    with pytest.raises(SystemExit) as ended:
        main(["bench", "-k", " or ".join(["naive"] * 99)])
    assert ended.value.code == 5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-k", "images"], False),
        (["-k", "tests"], False),
        (["benchmarks"], True),
        (["./benchmarks/bench_naive.py::x"], True),
        (["tests/../benchmarks"], True),
        (["-k", "benchmarks/../tests"], False),
        (["-k", "benchmarks/none"], False),
    ],
)
def test_bench_takes_folders_in_expressions_for_words(tiny, monkeypatch, arguments, named):
    """There are folders images and tests in a checkout; only those in benchmarks/ name what is to be run."""
    commands = []
    monkeypatch.setattr(
        cli.subprocess, "run", lambda run, **_: commands.append(run) or subprocess.CompletedProcess(run, 5)
    )
    with pytest.raises(SystemExit):
        main(["bench", *arguments])
    assert commands[0][-1] == (arguments[-1] if named else "benchmarks")


def test_bench_outside_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "mixcollate" / "commands" / "cli.py"))
    assert "not part of the installed package; clone the repository" in refused(capsys, "bench")


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert not left.value.code and capsys.readouterr().out == f"mixcollate {mixcollate.__version__}\n"


def test_the_arguments_of_the_process_are_taken(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mixcollate", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out == f"mixcollate {mixcollate.__version__}\n"


WITHOUT_ARGUMENTS = {
    "demo": {"out": Path("demo"), "root": Path("data"), "label_noise": [0, 0.4], "workers": 2, "seed": 0},
    "compare": {
        "out": Path("compare/results.jsonl"),
        "root": Path("data"),
        "methods": ["plain", "mixup", "cutmix"],
        "seeds": [0, 1, 2],
        "epochs": [40],
        "label_noise": [0],
        "share": [1],
        "start": ["random"],
        "start_epochs": 20,
        "classes": "all",
        "architecture": "small",
        "points": 1,
        "workers": 0,
    },
    "preview": {"out": Path("preview.png"), "images": [], "transform": "all", "seed": 0, "size": 224},
}


@pytest.mark.parametrize("command", WITHOUT_ARGUMENTS)
def test_a_command_needs_no_arguments(monkeypatch, command):
    """None is a value that leaves the choice to the command, or 0 where the help says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    options = vars(cli.parser().parse_args([command]))
    expected = WITHOUT_ARGUMENTS[command] | {"command": command}
    if command != "preview":
        expected |= {"data": "digits", "device": torch.device("cuda")}
    assert {name: options[name] for name in expected} == expected
    assert not any(value for name, value in options.items() if name not in expected)


def test_options_that_stand_for_others():
    def taken(*given):
        return cli.parser().parse_args(["compare", *given])

    assert taken("--pretrained").start == taken("--start", "pretrained").start == ["pretrained"]
    assert taken("--off-epoch", "-2").off_epoch == -2
    liked = taken("--like", "article", "--epochs", "3", "5")
    assert (liked.like, liked.epochs, liked.start) == ("article", [3, 5], ["pretrained"])


def test_env(capsys):
    main(["env"])
    printed = capsys.readouterr().out
    for words in (torch.__version__, np.__version__, "triton:", "C compiler:", "Python.h:", "GPU:", "numba:"):
        assert words in printed


def test_env_describes_the_machine(monkeypatch, capsys):
    gpu = SimpleNamespace(name="Some GPU", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpu)
    monkeypatch.setattr(environment, "python_header", lambda: Path("Python.h"))
    monkeypatch.setenv("TRITON_INTERPRET", "perhaps")
    environment.env()
    printed = capsys.readouterr().out
    assert (
        "Some GPU (sm_90, 80 GiB); Some GPU (sm_90, 80 GiB)\n" in printed and "Python.h:         Python.h\n" in printed
    )
    assert "TRITON_INTERPRET: perhaps\n" in printed and 'on the GPU:       impl="' in printed
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cuda, told in (("13.0", "none that torch can use"), (None, "none: this torch is built without CUDA")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        assert environment._gpus() == told
    assert environment.on_gpu().startswith("torch has no GPU here; with one, impl=")
    assert environment.version("a package of no such name") == "not installed"


@pytest.mark.parametrize(
    ("path", "output", "told"),
    [
        (None, "", "not found; Triton needs gcc, clang or CC"),
        ("/usr/bin/cc", "gcc 13.2\nCopyright\n", "gcc 13.2"),
        ("/usr/bin/cc", "", "/usr/bin/cc"),
    ],
)
def test_env_names_the_compiler(monkeypatch, path, output, told):
    monkeypatch.setattr(environment, "c_compiler", lambda: path)
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=output))
    assert environment._c_compiler() == told


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("rich.console", ["demo", *QUICK]),
        ("sklearn.datasets", ["demo", *QUICK]),
        ("scipy.optimize", ["demo", *QUICK]),
        ("skimage", ["preview"]),
        ("pytest_benchmark", ["bench"]),
    ],
)
def test_missing_extra(tmp_path, monkeypatch, capsys, module, arguments):
    data_of.cache_clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    missing = module.partition(".")[0]
    assert f'{missing} is not installed: pip install "mixcollate[cli]"' in refused(capsys, *arguments)


def test_other_missing_modules_are_not_hidden(monkeypatch):
    monkeypatch.setitem(sys.modules, "mixcollate.commands.demo", None)
    with pytest.raises(ModuleNotFoundError, match="mixcollate"):
        main(["demo"])

    def unnamed(options):
        raise ModuleNotFoundError("no name")

    monkeypatch.setattr(cli, "runs_of", unnamed)
    with pytest.raises(ModuleNotFoundError, match="no name"):
        main(["compare"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["demo", "--epochs", "0"], "--epochs: must be a whole number from 1 to 1000000, got 0"),
        (["demo", "--runs", "0"], "--runs: must be a whole number from 1 to 1000000, got 0"),
        (["demo", "--workers", HUGE], f"--workers: must be a whole number from 0 to 1024, got {HUGE}"),
        (["demo", "--label-noise", "0", "1.5"], "--label-noise: must be in [0, 1], got 1.5"),
        (["demo", "--data", "mnist"], "--data: invalid choice: 'mnist'"),
        (["compare", "--data", "mnist"], "--data: invalid choice: 'mnist'"),
        (["compare", "--like", "paper"], "--like: invalid choice: 'paper'"),
        (["compare", "--start", "random", "here"], "--start: invalid choice: 'here'"),
        (["compare", "--classes", "first-half"], "--classes: invalid choice: 'first-half'"),
        (["compare", "--architecture", "vit"], "--architecture: invalid choice: 'vit'"),
        (["compare", "--label-noise", "-0.1"], "--label-noise: must be in [0, 1], got -0.1"),
        (["compare", "--share", "0.5", "0"], "--share: must be in (0, 1], got 0"),
        (["compare", "--epochs", "1", "0"], "--epochs: must be a whole number from 1 to 1000000, got 0"),
        (["compare", "--start-epochs", "0"], "--start-epochs: must be a whole number from 1 to 1000000, got 0"),
        (["compare", "--warm-up", "-1"], "--warm-up: must be a whole number from 0 to 1000000, got -1"),
        (["compare", "--points", "0"], "--points: must be a whole number from 1 to 1000000, got 0"),
        (["compare", "--workers", HUGE], f"--workers: must be a whole number from 0 to 1024, got {HUGE}"),
        (["preview", "--size", "0"], "--size: must be a whole number from 1 to 4096, got 0"),
        (["demo", "--workers", "many"], "--workers: must be a whole number from 0 to 1024, got many"),
        (["demo", "--runs", HUGE], f"--runs: must be a whole number from 1 to 1000000, got {HUGE}"),
        (["demo", "--seed", HUGE], f"--seed: must be a whole number from 0 to {2**63 - 1}, got {HUGE}"),
        (["compare", "--seeds", "1", HUGE], f"--seeds: must be a whole number from 0 to {2**63 - 1}, got {HUGE}"),
        (["preview", "--seed", HUGE], f"--seed: must be a whole number from 0 to {2**63 - 1}, got {HUGE}"),
        (["preview", "--size", HUGE], f"--size: must be a whole number from 1 to 4096, got {HUGE}"),
        (["compare", "--pixels", HUGE], f"--pixels: must be a whole number from 0 to 4096, got {HUGE}"),
        (["compare", "--threads", HUGE], f"--threads: must be a whole number from 0 to 1024, got {HUGE}"),
        (["compare", "--batch-size", HUGE], f"or a whole number from 2 to 1000000, got {HUGE}"),
        (["compare", "--batch-size", "1"], "--batch-size: must be 0 (the data's own) or a whole number from 2"),
        (["compare", "--learning-rate", "nan"], "must be a number from 0 (the architecture's own) to 1000, got nan"),
        (["compare", "--learning-rate", "-1"], "--learning-rate: must be a number from 0"),
        (["compare", "--learning-rate", "1e308"], "--learning-rate: must be a number from 0"),
        (["compare", "--share", "most"], "--share: must be in (0, 1], got most"),
        (["compare", "--device", "cudaa"], "--device: must be a device that torch can use here, got 'cudaa'; auto"),
        (["demo", "--device", ""], "--device: must be a device that torch can use here, got ''"),
        (["demo", "--device", "cuda:99"], "--device: must be a device that torch can use here, got 'cuda:99'"),
        (["demo", "--device", "meta"], "--device: must be a device that torch can use here, got 'meta'"),
        (["demo", "--device", "hpu"], "--device: must be a device that torch can use here, got 'hpu'"),
    ],
)
def test_refused_arguments(capsys, monkeypatch, arguments, message):
    nothing_is_trained(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def nothing_is_trained(monkeypatch):
    def trained(*_, **__):
        raise AssertionError("it was trained")

    for command in (demo, compare):
        monkeypatch.setattr(command, "execute", trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "1"], "--transform all at --size 1: images must have more than one pixel for boxes.* use MixUp"),
        (["--size", "2", "--transform", "cutmix"], "--size 2: images must have sides of more than 2 .* placement="),
        (["--transform", "MixUp(layout='BCT')"], r"the 3 axes of layout='BCT', got \(6, 3, 224, 224\)"),
        (["--transform", "RandomErasing(fill=(1,2))"], r"fill must have 1 or 3 values, one per channel, got \(1, 2\)"),
        (["--transform", "MixUp(p=until(3,value=2))"], "p in epoch 0 must be a probability"),
    ],
)
def test_previews_that_cannot_be_drawn_are_refused(tmp_path, capsys, arguments, message):
    assert re.search(message, refused(capsys, "preview", *arguments, "--out", str(tmp_path / "a.png")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Cutout(length=999)"], r"Cutout\(length=999\) at --pixels 12: length must be at most twice .* got 999"),
        (["cutmix", "--pixels", "1"], "cutmix at --pixels 1: images must have more than one pixel .* use MixUp"),
        (["RandomErasing(fill=(1,2,3))"], r"fill must have one value, got \(1, 2, 3\)"),
        (["MixUp(p=ramp(2,9))", "--epochs", "10"], "p in epoch 9 must be a probability"),
        (["MixUp(p=until(1,2))", "--epochs", "10"], "p in epoch 0 must be a probability"),
        (["MixUp(pairing=until(3))"], r"pairing=until\(3\)\) at --pixels 12: .* positional arguments"),
        (["MixUp(num_classes=3)"], "num_classes must be the transform's 3, got 10"),
    ],
)
def test_methods_that_cannot_mix_the_data_are_refused_before_training(
    tmp_path, capsys, monkeypatch, arguments, message
):
    nothing_is_trained(monkeypatch)
    said = refused(capsys, "compare", "--out", str(tmp_path / "rows"), "--methods", "plain", *arguments)
    assert re.search(f"compare: --methods .*{message}", said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "out", "message"),
    [
        ("demo", "text", "--out must be a folder that can be written, got .*text: File exists"),
        ("demo", "/proc/none", "--out must be a folder that can be written, got /proc/none: No such file"),
        ("demo", "/proc", "--out must be a folder that can be written, got /proc: No such file"),
        ("compare", ".", "--out must be a new file, or one written by this command, got .*: it is not a regular file"),
        ("compare", "/dev/zero", "got /dev/zero: it is not a regular file"),
        ("compare", "x" * 300, "--out must be a new file, or one written by this command, got .*: File name too long"),
        ("compare", "bytes", "--out must be a new file, or one written by this command, got .*bytes: 'utf-8' codec"),
        ("compare", "lines", "got .*lines: Expecting value"),
        ("compare", "text", "got .*text: it has lines of another kind"),
        ("compare", "json", "got .*json: it has lines of another kind"),
        ("compare", "rows", "got .*rows: it has lines of another kind"),
        ("compare", "text/rows", "--out must be a file that can be written, got .*text/rows: File exists"),
        ("compare", "/proc/none", "--out must be a file that can be written, got /proc/none: No such file"),
    ],
)
def test_an_out_that_cannot_be_written_is_refused_before_training(tmp_path, capsys, monkeypatch, command, out, message):
    """What is there stays."""
    nothing_is_trained(monkeypatch)
    files = {"text": b"no row, nor its end", "lines": b"no\nrows\n", "json": b"[1]\n", "bytes": b"\xff\xfe\n"}
    files["rows"] = b'{"run": {}, "outcome": {}}\n'
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert re.search(message, refused(capsys, command, "--device", "cpu", "--out", str(tmp_path / out)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_picture_in_whose_place_a_folder_is(tmp_path):
    (tmp_path / "calibration.png").mkdir()
    bins = [(100, 0.5, 0.4)]
    outcome = {"curve": [(1, 50.0)], "reliability": bins, "tempered_reliability": bins}
    with pytest.raises(Refusal, match=r"pictures must be files .* got .*calibration\.png: Is a directory"):
        plots.draw([{"run": asdict(Run(method="plain", seed=0)), "outcome": outcome}], tmp_path)


def test_training_that_diverged_is_reported():
    with pytest.raises(Refusal, match="training has diverged.* try a lower --learning-rate"):
        judge(torch.tensor([[0.0, float("nan")]]), torch.tensor([0]))


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], *([name] for name in cli.EXAMPLES)])
def test_help_teaches_with_an_example(capsys, command, flag):
    with pytest.raises(SystemExit) as ended:
        main([*command, flag])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: mixcollate" in printed and "default: None" not in printed and "default: []" not in printed
    assert ("(default: 0)" in printed) == (command in (["demo"], ["compare"], ["preview"]))
    examples = [line.strip() for line in printed.splitlines() if line.startswith("  mixcollate ")]
    assert examples == ([cli.EXAMPLES[command[0]]] if command else list(cli.EXAMPLES.values()))
    for example in examples:
        arguments = shlex.split(example)[1:]
        assert cli.parser().parse_args(arguments[:1] if arguments[0] == "bench" else arguments)


def test_an_interruption_is_reported(tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "execute", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--epochs", "1", "--out", str(tmp_path / "rows.jsonl")])
    assert ended.value.code == 130
    assert "interrupted; the same command resumes after the finished runs" in capsys.readouterr().err
    monkeypatch.setattr(demo, "execute", interrupted)
    with pytest.raises(SystemExit):
        main(["demo", *QUICK, "--out", str(tmp_path)])
    assert capsys.readouterr().err.endswith("mixcollate demo: interrupted\n")


@pytest.mark.parametrize("command", ["env", "--help"])
@pytest.mark.parametrize("buffered", [True, False])
def test_output_that_nobody_reads_ends_a_command_in_silence(capfd, monkeypatch, command, buffered):
    """As in ``mixcollate env | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as pipe:
        pipe.reconfigure(write_through=not buffered)
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            main([command])
    assert ended.value.code == 141
    assert not capfd.readouterr().err


IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
NOT_PATIENT = "from mixcollate.commands import cli, pictures; pictures.PATIENCE = 0; cli.main()"


@pytest.mark.slow  # two processes that import everything
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_colours_and_bars_are_for_terminals(tmp_path, photographs, terminal):
    command = [sys.executable, "-c", NOT_PATIENT, "preview", *map(str, photographs), "--out", str(tmp_path / "a.png")]
    if terminal:
        command = [sys.executable, "-c", IN_A_TERMINAL, *command]
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    done = subprocess.run(command, env=environment | {"TERM": "xterm"}, capture_output=True, text=True, check=True)
    assert "a.png: " in done.stdout
    assert ("\x1b[" in done.stdout and "reading pictures" in done.stdout) == terminal
    assert terminal or ("\x1b" not in done.stdout + done.stderr and not done.stderr)


def test_a_demo_in_a_pipe_has_no_colours_and_needs_no_more_than_ascii(tmp_path, ascii_terminal):
    printed = ascii_terminal()
    main(["demo", *QUICK, "--label-noise", "0", "--out", str(tmp_path)])
    written = printed.getvalue()
    assert b"\x1b" not in written and b"1 x 1 epochs" in written and b"standard errors" in written


def test_a_preview_is_reported_in_ascii(tmp_path, photographs, ascii_terminal):
    printed = ascii_terminal()
    main(["preview", *map(str, photographs), "--method", "mixup", "--size", "32", "--out", str(tmp_path / "naïé.png")])
    assert re.search(rb"na\\xef\\xe9\.png: \d+x\d+ pixels", printed.getvalue())
    with pytest.raises(SystemExit):
        main(["preview", "--out", "naïve.gif"])
    assert b"got na\\xefve.gif" in printed.getvalue()


def test_benchmarks_print_what_the_terminal_knows(tiny, monkeypatch, ascii_terminal):
    """A stream of text has no encoding; then they keep their own."""
    ascii_terminal()
    given = []
    monkeypatch.setattr(
        cli.subprocess, "run", lambda command, cwd, env: given.append(env) or subprocess.CompletedProcess(command, 5)
    )
    for encoding in ("ascii", ""):
        with pytest.raises(SystemExit):
            main(["bench"])
        assert given[-1]["PYTHONIOENCODING"] == f"{encoding}:replace" and given[-1].keys() >= os.environ.keys()
        monkeypatch.setattr(sys, "stdout", io.StringIO())


@pytest.mark.slow  # a process that trains until it is interrupted
@pytest.mark.parametrize("command", ["demo", "compare"])
def test_ctrl_c_ends_it_without_a_traceback(tmp_path, command, heeding_interrupts):
    options = {"demo": ["--epochs", "1000"], "compare": ["--epochs", "1000", "--threads", "1"]}[command]
    out = tmp_path / ("rows.jsonl" if command == "compare" else "demo")
    run = [sys.executable, "-u", "-m", "mixcollate", command, *options, "--workers", "1", "--out", str(out)]
    with subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as one:
        try:
            end = time.monotonic() + 60
            while not forks_of(one.pid) and time.monotonic() < end:  # its worker, once it trains
                time.sleep(0.1)
            time.sleep(1)
            os.killpg(one.pid, signal.SIGINT)  # as a terminal does, to all of them
            out, errors = one.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
    assert one.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in out + errors


@pytest.fixture
def heeding_interrupts():
    """A shell's background jobs ignore interrupts, and so would what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def forks_of(pid):
    """The children of a process that run what it runs; not the compiler or the linker that an import asks."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it may be gone already
            lines = [Path(f"/proc/{one}/cmdline").read_bytes() for one in (pid, child)]
            found += [child] if lines[0] == lines[1] else []
    return found


def test_env_says_what_mixes_and_why(monkeypatch):
    for found, works, told in (
        (None, None, 'take half the time with Numba (pip install "'),
        (object(), None, "Numba is installed, but does not work here"),
        (object(), object(), "with blends compiled by Numba"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda name, found=found: found)
            patch.setattr(environment, "loops", lambda works=works: works)
            assert 'impl="host": NumPy' in environment.on_cpu() and told in environment.on_cpu()
    monkeypatch.setattr(support, "c_compiler", lambda: None)
    reason = environment.on_gpu()
    assert 'impl="reference": plain torch mixes on the GPU' in reason and "a C compiler for Triton" in reason
    monkeypatch.setattr(support, "c_compiler", lambda: "cc")
    monkeypatch.setattr(support, "python_header", lambda: Path("Python.h"))
    monkeypatch.setattr(support, "has_right_triton", lambda: True)
    assert 'impl="fused": Triton kernels' in environment.on_gpu()
    monkeypatch.setattr(support, "has_right_triton", lambda: False)
    assert "missing: torch 2.9, whose Triton compiles the kernels" in environment.on_gpu()
    support.can_fuse.cache_clear()
