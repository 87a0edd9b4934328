"""compare: equal settings come to the same, what was done stays done, wrong labels are as many as asked for."""

import json
import math
import re
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import TensorDataset

from mixcollate import CutMix, MixUp
from mixcollate.commands import Refusal, article, compare, training
from mixcollate.commands.calibration import calibration_error, fit_temperature, reliability, tempered
from mixcollate.commands.cli import main, parser
from mixcollate.commands.data import Data, Labelled, load, subset
from mixcollate.commands.environment import version
from mixcollate.commands.networks import ARCHITECTURES, small, transfer
from mixcollate.commands.plots import draw
from mixcollate.commands.recipes import RECIPES, parse
from mixcollate.commands.summary import cells, command, difference, estimate, lines, markdown, varying
from mixcollate.commands.training import Run, execute

CPU = torch.device("cpu")
NOWHERE = Path("nowhere")


def tiny(**settings):
    """One or two epochs on a tenth of the digits."""
    usual = {"method": "cutmix", "seed": 0, "data": "digits", "pixels": 8, "share": 0.1, "epochs": 2, "batch_size": 16}
    return Run(**usual | settings)


def test_equal_settings_come_to_the_same():
    first, again = (execute(tiny(), NOWHERE, device=CPU, points=2) for _ in range(2))
    assert first == again
    for other in (tiny(seed=1), tiny(method="mixup"), tiny(label_noise=0.4), tiny(epochs=1), tiny(share=0.2)):
        assert execute(other, NOWHERE, device=CPU).loss != first.loss
    off, scheduled = (
        execute(run, NOWHERE, device=CPU) for run in (tiny(off_epoch=1), tiny(method="CutMix(p=until(1))"))
    )
    assert off == scheduled and off.loss != first.loss


def test_evaluation_is_plain():
    digits = load("digits", NOWHERE, 8)
    images, labels = next(iter(training.loaders(tiny(), digits, CPU, 0)[1]))
    wanted = (digits.test.tensors[0][:500] / 255 - digits.mean[0]) / digits.std[0]
    torch.testing.assert_close(images, wanted, rtol=0, atol=1e-5)
    assert torch.equal(labels, digits.test.tensors[1][:500])


def test_what_is_measured_during_training_changes_nothing():
    often, once = (execute(tiny(epochs=3), NOWHERE, device=CPU, points=points) for points in (2, 1))
    assert [epoch for epoch, _ in often.curve] == [2, 3]
    assert replace(often, curve=once.curve) == once


def test_what_a_network_starts_from_is_trained_alike_on_plain_images():
    common = {"start_epochs": 7, "learning_rate": 0.5, "seed": 3}
    plain = {"method": "plain", "epochs": 7, "learning_rate": 0.5, "seed": 3}
    assert training._before(tiny(start="rest", label_noise=0.4, **common)) == tiny(**plain)
    half = tiny(start="first-half", classes="second-half", **common)
    assert training._before(half) == tiny(**plain, classes="first-half", share=1.0)


def test_digits_are_scaled_and_the_training_sets_statistics_known():
    digits = load("digits", NOWHERE, 8)
    images, tests = digits.train.tensors[0], digits.test.tensors[0]
    assert torch.cat([images, tests]).unique().tolist() == [int(level / 16 * 255.999) for level in range(17)]
    assert digits.mean == pytest.approx([images.double().mean().item() / 255])
    assert digits.std == pytest.approx([images.double().std().item() / 255])


def test_wrong_labels_are_exactly_as_many_and_never_the_test_sets():
    digits = load("digits", NOWHERE, 8)
    right = digits.train.tensors[1].clone()
    for noise, count in ((0.0, 0), (0.0006, 1), (0.4, 359), (1.0, 898)):
        noisy = subset(digits, label_noise=noise, seed=3)
        labels = torch.tensor([label for _, label in noisy.train])
        assert int((labels != right).sum()) == count
        assert set(labels.tolist()) == set(range(10))
        assert [label for _, label in noisy.test] == digits.test.tensors[1].tolist()
        assert all(torch.equal(noisy.test[i][0], digits.test[i][0]) for i in (0, 500, 898))
    assert torch.equal(digits.train.tensors[1], right)
    same, other = (subset(digits, label_noise=0.4, seed=seed).train.labels for seed in (3, 4))
    assert same == subset(digits, label_noise=0.4, seed=3).train.labels != other


def test_a_share_has_as_much_of_each_class():
    digits = load("digits", NOWHERE, 8)
    few = subset(digits, share=0.1, seed=1)
    counts = torch.bincount(torch.tensor(few.train.labels))
    assert counts.tolist() == [round(0.1 * n) for n in torch.bincount(digits.train.tensors[1]).tolist()]
    assert digits.train.tensors[1][few.train.indices].tolist() == few.train.labels
    assert len(few.test) == 899
    assert sorted(subset(digits, share=0.001).train.labels) == list(range(10))
    others = subset(digits, share=0.1, rest=True, seed=1)
    assert sorted([*few.train.indices, *others.train.indices]) == list(range(898))


def test_halves_of_the_classes_are_numbered_from_zero():
    digits = load("digits", NOWHERE, 8)
    first, second = (subset(digits, classes=f"{name}-half") for name in ("first", "second"))
    assert first.classes == list("01234") and second.classes == list("56789")
    assert len(first.train) + len(second.train) == 898 and len(first.test) + len(second.test) == 899
    for half, start in ((first, 0), (second, 5)):
        assert isinstance(half.test, Labelled)
        assert [label + start for label in half.train.labels] == digits.train.tensors[1][half.train.indices].tolist()
        assert [label + start for label in half.test.labels] == digits.test.tensors[1][half.test.indices].tolist()


@pytest.mark.parametrize(
    ("how", "message"),
    [({"share": 0.9999, "rest": True}, "what --share leaves over"), ({"classes": "first-half"}, "first-half of 1 cl")],
)
def test_no_images_to_start_from(how, message):
    ones = TensorDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(Refusal, match=f"training must have images, got none in .*{message}.*; use --start random"):
        subset(Data(ones, ones, ["one"], (0.5,), (0.5,)), **how)


@pytest.mark.parametrize("label_noise", [0.0, 0.4])
def test_one_class_is_refused(label_noise):
    ones = TensorDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(Refusal, match="training must have two classes or more, got only 'one'"):
        subset(Data(ones, ones, ["one"], (0.5,), (0.5,)), label_noise=label_noise)


def test_what_was_done_is_not_done_again(tmp_path, monkeypatch):
    file = tmp_path / "new" / "folder" / "rows.jsonl"
    runs = [tiny(), *[tiny(method="plain")] * 2]
    rows = compare.carry_out(runs[:1], file, NOWHERE, device=CPU)
    with file.open("a") as open_file:
        open_file.write('{"run": {"method": "pl')  # as a kill in mid-write leaves it
    done, epochs = [], []
    monkeypatch.setattr(
        compare, "execute", lambda run, *given, **options: done.append(run) or execute(run, *given, **options)
    )
    again = compare.carry_out(runs, file, NOWHERE, device=CPU, points=2, advance=lambda: epochs.append(1))
    assert done == runs[1:2] and again[0] == rows[0] and again[1] == again[2] and len(epochs) == 6
    assert [json.loads(line) for line in file.read_text().splitlines()] == again[:2] == compare.read(file)
    assert [len(one["outcome"]["curve"]) for one in again] == [1, 2, 2]
    assert again[1]["run"] == asdict(runs[1]) and again[1]["made"]["threads"] == 1


def test_other_pictures_are_another_run(tmp_path):
    for name in ("one", "other", "one"):
        for place in range(8):
            picture = tmp_path / name / "ab"[place % 2] / f"{place}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (32 * place, 0, 255 * (name == "one"))).save(picture)
        run = tiny(data="imagefolder", share=1.0, epochs=1)
        rows = compare.carry_out([run], tmp_path / "rows.jsonl", tmp_path / name, device=CPU)
        assert f"--root {tmp_path / name}" in command(rows)
    assert len(compare.read(tmp_path / "rows.jsonl")) == 2


def test_rows_name_the_commit_of_this_package(tmp_path, monkeypatch):
    """Without git, and in an environment inside the checkout of another project, it is the installed version."""
    monkeypatch.setattr(compare, "ROOT", Path(compare.__file__).parents[1])  # as deep in a checkout as site-packages
    assert compare._commit() == version("mixcollate")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    (row,) = compare.carry_out([tiny(epochs=1)], tmp_path / "rows.jsonl", NOWHERE, device=CPU)
    assert row["made"]["commit"] == version("mixcollate")


def test_seeds_come_last_so_that_an_interruption_leaves_all_arms_alike():
    runs = compare.grid({"epochs": [1, 2], "method": ["plain", "mixup"]}, {"data": "digits"}, [5, 6])
    assert [(run.seed, run.epochs, run.method) for run in runs[:5]] == [
        (5, 1, "plain"),
        (5, 1, "mixup"),
        (5, 2, "plain"),
        (5, 2, "mixup"),
        (6, 1, "plain"),
    ]


def test_when_images_are_mixed():
    def mixed(**settings):
        run = tiny(epochs=6, **settings)
        return [epoch for epoch in range(6) if run.mixes_in(epoch)]

    assert mixed() == [0, 1, 2, 3, 4, 5]
    assert mixed(method="plain") == []
    assert mixed(warm_up=2) == [2, 3, 4, 5]
    assert mixed(off_epoch=4) == mixed(off_epoch=-2) == [0, 1, 2, 3]
    assert mixed(off_epoch=0) == []


def test_settings_of_0_are_the_datas_and_the_networks_own():
    def settled(**settings):
        run = Run(method="plain", seed=0, **settings)
        return run.pixels, run.batch_size, run.learning_rate

    assert settled() == (12, 64, 0.003)
    assert settled(pixels=9, batch_size=16, learning_rate=0.5) == (9, 16, 0.5)
    cifar = {"data": "cifar10", "architecture": "resnet50"}
    assert (settled(**cifar), settled(**cifar, start="pretrained")) == ((32, 128, 0.1), (32, 128, 0.01))


def test_each_seed_has_a_subset_and_wrong_labels_of_its_own(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "train", lambda run, data, *rest: seen.append(data.train) or (None, None))
    for seed in (0, 0, 1):
        execute(tiny(label_noise=0.4, seed=seed), NOWHERE, device=CPU)
    first, again, other = ((part.indices, part.labels) for part in seen)
    assert first == again and first[0] != other[0] and first[1] != other[1]
    run = tiny(start="rest", seed=1)
    execute(run, NOWHERE, device=CPU)
    training._trained.__wrapped__(training._before(run), True, NOWHERE, CPU, 0)
    assert sorted([*seen[-1].indices, *seen[-2].indices]) == list(range(898))


def test_a_network_begins_where_another_ended():
    source, target = small(1, 5), small(1, 3)
    head = target[-1].weight.clone()
    transfer(source, target)
    assert torch.equal(source[0].weight, target[0].weight) and torch.equal(source[7].running_var, target[7].running_var)
    assert torch.equal(target[-1].weight, head)
    start = {"classes": "second-half", "start_epochs": 8, "epochs": 4}
    starts = ("random", "first-half", "rest")
    random, half, rest = (execute(tiny(start=name, **start), NOWHERE, device=CPU).loss for name in starts)
    assert rest < half < random


@pytest.mark.parametrize("name", ["small", "resnet20", "wrn-16-4"])
def test_architectures(name):
    model = ARCHITECTURES[name](3, 7).eval()
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    parameters = sum(value.numel() for value in model.parameters())
    published = {"resnet20": 0.27e6, "wrn-16-4": 2.75e6}
    assert name == "small" or parameters == pytest.approx(published[name], rel=0.02)


def test_temperature_is_recovered_and_mends_the_calibration():
    """Labels are drawn from the network's own probabilities, which are then made too sure or not sure enough."""
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 10, generator=draw, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    assert calibration_error(logits.softmax(1), labels) < 0.01
    for factor in (3.0, 0.3):
        assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)
        mended, temperature = tempered(factor * logits, labels)
        assert temperature == pytest.approx(factor, rel=0.03)
        assert calibration_error((factor * logits).softmax(1), labels) > 0.1
        assert calibration_error(mended.softmax(1), labels) < 0.015
    bins = reliability(logits.softmax(1), labels)
    assert int(bins[:, 0].sum()) == 20_000 and bins[:, 0].min() >= 0


def test_an_image_has_no_say_in_its_own_temperature():
    logits, labels = torch.randn(40, 3), torch.arange(40) % 3
    before, _ = tempered(logits, labels)
    changed = labels.clone()
    changed[::2] = (changed[::2] + 1) % 3
    after, _ = tempered(logits, changed)
    assert torch.equal(before[::2], after[::2]) and not torch.equal(before[1::2], after[1::2])


def test_the_temperature_is_the_mean_of_both_halves():
    logits, labels = torch.randn(40, 3), torch.arange(40) % 3
    both = [fit_temperature(logits[half::2], labels[half::2]) for half in (0, 1)]
    assert both[0] != both[1] and tempered(logits, labels)[1] == pytest.approx(sum(both) / 2)


def test_an_outcome_has_everything_before_and_after_tempering():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=draw)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    found = training.judge(3 * logits, labels)
    mended, temperature = tempered(3 * logits, labels)
    before, after = (3 * logits).double().softmax(1), mended.double().softmax(1)
    assert found.temperature == pytest.approx(temperature, abs=1e-4)
    assert found.accuracy == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item(), abs=1e-3)
    assert found.confidence == pytest.approx(100 * before.amax(1).mean().item(), abs=1e-3)
    for probabilities, loss, error, bins in (
        (before, found.loss, found.calibration_error, found.reliability),
        (after, found.tempered_loss, found.tempered_calibration_error, found.tempered_reliability),
    ):
        assert loss == pytest.approx(-probabilities[range(200), labels].log().mean().item(), abs=1e-4)
        assert error == pytest.approx(100 * calibration_error(probabilities, labels), abs=1e-3)
        torch.testing.assert_close(torch.tensor(bins).double(), reliability(probabilities, labels), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "text", [*RECIPES, "DeiT", "CutMix", "cutmix", "CutMix()", "RandomChoice([MixUp(alpha=0.8), CutMix()], p=[.2, .8])"]
)
def test_recipes_are_read(text):
    transform = parse(text)
    assert transform.make_plan(torch.empty(4, 1, 8, 8)).size == (8, 8)


def test_recipes_are_those_that_the_readme_names():
    readme = " ".join((Path(__file__).parent.parent / "README.md").read_text().split())
    assert f"`{RECIPES['deit']}`, the DeiT recipe" in readme
    assert RECIPES["article"].removesuffix(")") in readme


def test_recipes_say_what_python_would():
    assert parse("MixUp(alpha=8)").alpha == 8
    assert parse(" CutMix( p = until(3, 0.5) ) ").p(2) == 0.5
    choice = parse("RandomChoice((MixUp(alpha=0.8), CutMix()))")
    assert [type(one) for one in choice.transforms] == [MixUp, CutMix]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smoothmix", "one of .*mixup.*deit.*got 'smoothmix'|smoothmix is neither"),
        ("__import__('os').system('true')", r"unknown name __import__\('os'\).system"),
        ("MixUp(alpha=open('x'))", "unknown name open; known are .*MixUp"),
        ("MixUp(alpha=2 ** 8)", r"2 \*\* 8 is neither a literal nor a call"),
        ("MixUp(**{})", r"cannot take \*\*arguments"),
        ("MixUp(alpha=-1)", "alpha must be"),
        ("MixUp(beta=1)", "MixUp has no argument beta"),
        ("until(3)", "a transform must be"),
        ("MixUp(", "a transform must be"),
        ("(" * 5000, "a transform must be"),
        # as Python parses it or not, and its stack is deep enough or not, which other libraries change
        ("-" * 5000 + "1", "a transform must be|in the transform '-.*recursion"),
        (f"MixUp(alpha={'-' * 600}1)", "in the transform 'MixUp.*(recursion|is neither)"),
        ("", "a transform must be"),
        ("\0", "a transform must be"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        parse(text)


def row(method="plain", seed=0, accuracy=90.0, **settings):
    """A row as a run would write it."""
    bins = [[100, 0.5, 0.4], [3, 0.9, 1.0]]
    outcome = {"accuracy": accuracy, "calibration_error": 5.0, "loss": 0.3, "temperature": 1.5, "curve": [[1, 50.0]]}
    outcome |= {"tempered_calibration_error": 1.0, "reliability": bins, "tempered_reliability": bins}
    return {"run": asdict(Run(method=method, seed=seed, **settings)), "outcome": outcome, "made": {"threads": 1}}


def test_known_differences_are_recovered():
    assert tuple(difference([90, 80, 70], [91, 82, 73])) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841, 3), abs=1e-3)
    assert difference([90, 80], [89.5, 79.5]) == (-0.5, -0.5, -0.5, 2) and difference([90, 80], [89.5, 79.5]).shown
    alone = difference([90], [91])
    assert alone.mean == 1 and str(alone) == "+1.0" and not alone.shown
    assert estimate([1, 2, 3]).text(2) == "2.00 ± 0.58" and estimate([1]).text() == "1.0"
    assert math.isnan(estimate([1]).error)


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds):
    """Runs that share a seed share its luck, which the pairing takes out; 19 of 20 intervals hold the true gain."""
    draw, held, count = np.random.default_rng(0), 0, 1500
    for _ in range(count):
        luck = draw.normal(90, 3, seeds)
        found = difference(luck + draw.normal(0, 0.5, seeds), luck + 1.5 + draw.normal(0, 0.5, seeds))
        held += found.low <= 1.5 <= found.high
        assert found.high - found.low < 15  # the luck of the seeds would make it three times as wide
    assert abs(held / count - 0.95) < 3 * math.sqrt(0.95 * 0.05 / count)


def test_a_summary_pairs_what_shares_a_seed():
    rows = [row("plain", seed, 80 + 5 * seed, label_noise=noise) for noise in (0.4, 0.0) for seed in (0, 1, 2)]
    rows += [row("mixup", seed, 81 + 5 * seed + noise, label_noise=noise) for noise in (0.4, 0.0) for seed in (2, 1)]
    assert varying(rows) == ["label_noise"]
    first, mixed, *noisy = lines(rows)
    assert [line.setting for line in (first, mixed, *noisy)] == [(0.0,), (0.0,), (0.4,), (0.4,)]
    assert first.gain is None and first.of("accuracy").mean == 85
    assert mixed.gain == (1, 1, 1, 2) and mixed.of("accuracy").mean == 88.5
    assert noisy[1].gain.mean == pytest.approx(1.4)
    head, *body = markdown(cells(rows)).splitlines()
    assert "| label noise | method | accuracy | against plain |" in head and len(body) == 5


def test_a_summary_pairs_what_there_is():
    rows = [row("plain", seed, label_noise=0.0) for seed in (0, 1)]
    rows += [row("mixup", seed, 92, label_noise=noise) for noise in (0.0, 0.4) for seed in (2, 1)]
    plain, mixed, alone = lines(rows)
    assert (plain.gain, mixed.gain.seeds, mixed.gain.mean, alone.gain) == (None, 1, 2, None)


def test_one_command_makes_rows_of_one_data_set():
    with pytest.raises(ValueError, match="rows of one command must agree on data, got"):
        command([row(data="digits"), row(data="cifar10")])


def test_the_printed_command_measures_as_often_and_on_as_many_threads():
    first, second = row(seed=0), row(seed=1)
    first["made"]["threads"], second["outcome"]["curve"] = 3, [[1, 50.0], [2, 60.0]]
    assert command([first, second]).endswith("--points 2 --threads 3")


def test_settings_that_are_not_set_come_last_in_a_summary():
    rows = [row(seed=0, off_epoch=epoch, share=share) for epoch in (None, 4, -1) for share in (0.5, 0.1)]
    settings = [line.setting for line in lines(rows)]
    assert settings == [(share, epoch) for share in (0.1, 0.5) for epoch in (-1, 4, None)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"data": "cifar100", "architecture": "wrn-16-4", "pixels": 16, "batch_size": 32, "learning_rate": 0.2},
        {"classes": "second-half", "warm_up": 2, "off_epoch": 4, "start_epochs": 3},
        {"architecture": "resnet50", "data": "cifar10"},
        {"learning_rate": 1 / 300, "off_epoch": -2},
    ],
)
def test_the_printed_command_makes_the_same_runs(settings):
    varied = {"epochs": [5, 10], "start": ["random"], "share": [0.5], "label_noise": [0.0, 0.4]}
    runs = compare.grid({**varied, "method": ["plain", 'RandomErasing(fill="noise")']}, settings, [3, 4])
    printed = command([{**row(), "run": asdict(run)} for run in runs])
    program, *arguments = shlex.split(printed)
    assert program == "mixcollate"
    assert compare.runs_of(parser().parse_args(arguments)) == runs


def test_pictures_need_no_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # it would choose a backend
    rows = [
        row(method, seed, 80 + seed, epochs=epochs, label_noise=noise)
        for method in ("plain", "mixup")
        for seed in (0, 1)
        for epochs in (1, 2)
        for noise in (0.0, 0.2, 0.4)
    ]
    for one in rows:
        one["outcome"]["curve"] = [[1, 50.0], [2, 60.0]]
    written = draw(rows, tmp_path / "new", "a-", "svg")
    assert [path.name for path in written] == [f"a-{n}.svg" for n in ("calibration", "accuracy", "schedules", "noise")]
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in draw(rows, tmp_path / "new", "a-", "svg")] == before
    assert b"40% wrong labels" in before[2] and b"plain" in before[0]


def test_compare_from_the_command_line(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    common = ["compare", "--out", str(file), "--pixels", "8", "--share", "0.1", "--threads", "1", "--device", "cpu"]
    varied = ["--methods", "plain", "MixUp(alpha=8)", "--epochs", "1", "2", "--label-noise", "0", "0.4"]
    options = ["--batch-size", "16", "--warm-up", "1", "--off-epoch", "-1", "--learning-rate", "0.01", "--points", "2"]
    main([*common, *varied, *options, "--seeds", "0"])
    rows = compare.read(file)
    assert len(rows) == 8
    assert {row["run"]["method"] for row in rows} == {"plain", "MixUp(alpha=8)"}
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("8 runs on cpu", "to repeat: mixcollate compare --data digits", "rows-schedules.png"):
        assert words in printed
    assert (tmp_path / "rows-accuracy.png").stat().st_size > 10_000
    written = file.read_bytes()
    main([*common, *varied, *options, "--seeds", "0"])
    assert file.read_bytes() == written  # nothing was left to do


def test_a_comparison_is_printed_in_ascii(tmp_path, ascii_terminal, monkeypatch):
    printed = ascii_terminal()
    rows = [row(method, seed, 80 + seed) for seed in (0, 1) for method in ("plain", "mixup")]
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(compare, "carry_out", lambda *arguments, **options: rows)
    main(["compare", "--out", str(tmp_path / "rows.jsonl"), "--threads", "3"])
    assert b"80.5 +- 0.5" in printed.getvalue() and threads == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "smoothmix"], "a transform must be one of .*mixup.*, got 'smoothmix'"),
        (["--methods", "MixUp(alpha=0)"], "alpha must be"),
        (["--start", "rest"], "share must leave images over"),
        (["--start", "first-half"], "classes must be second-half"),
        (["--start", "pretrained"], "architecture must be resnet50"),
        (["--label-noise", "1.5"], r"must be in \[0, 1\], got 1.5"),
        (["--share", "0"], r"must be in \(0, 1\], got 0"),
        (["--data", "mnist"], "invalid choice: 'mnist'"),
    ],
)
def test_refused_comparisons(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--out", str(tmp_path / "rows"), *arguments])
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_the_articles_experiment_is_one_command(tmp_path, capsys, monkeypatch):
    """A dozen images, one step, and no weights to download."""
    asked = []
    build = torchvision.models.resnet50
    monkeypatch.setattr(torchvision.models, "resnet50", lambda weights: asked.append(weights) or build(weights=None))
    for name in ("a", "b"):
        for number in range(8):
            (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 32), 50).save(tmp_path / "root" / name / f"{number}.png")
    root = ["--data", "imagefolder", "--root", str(tmp_path / "root"), "--out", str(tmp_path / "rows.jsonl")]
    small = ["--pixels", "32", "--batch-size", "12", "--epochs", "1", "--seeds", "0", "--workers", "0"]
    main(["compare", "--like", "article", *root, *small, "--methods", "plain", "article", "--threads", "1"])
    rows = compare.read(tmp_path / "rows.jsonl")
    assert [row["run"]["method"] for row in rows] == ["plain", "article"]
    assert all(row["run"]["architecture"] == "resnet50" for row in rows) and None not in asked and len(asked) == 2
    assert "the article's" in capsys.readouterr().out


def test_the_articles_table_stands_beside_ours():
    ours = [row(method, seed, 96 + seed, data="cifar10") for method in ("plain", "article", "ricap") for seed in (0, 1)]
    _, plain, mixup, sister = article.beside(ours)
    assert plain == ["plain", "96.50 ± 0.50", "2", "96.75 ± 0.03", "8"]
    assert mixup[3] == "96.49 ± 0.05" and sister[3] == "not given"
    runs = compare.runs_of(parser().parse_args(["compare", "--like", "article", "--data", "cifar100", "--seeds", "3"]))
    assert len(runs) == 7 and {(run.data, run.start, run.pixels, run.seed) for run in runs} == {
        ("cifar100", "pretrained", 224, 3)
    }
