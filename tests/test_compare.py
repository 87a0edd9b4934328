"""compare: equal settings come to the same, what was done stays done, wrong labels are as many as asked for."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mixcollate import CutMix, MixUp
from mixcollate.commands import compare
from mixcollate.commands.calibration import calibration_error, fit_temperature, reliability, tempered
from mixcollate.commands.cli import main
from mixcollate.commands.data import Labelled, load, part
from mixcollate.commands.networks import ARCHITECTURES, small, transfer
from mixcollate.commands.recipes import RECIPES, parse
from mixcollate.commands.training import Run, execute

CPU = torch.device("cpu")
NOWHERE = Path("nowhere")


@pytest.fixture(autouse=True)
def one_thread():
    """One seed is one result at one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**settings):
    """One or two epochs on a tenth of the digits."""
    return Run(
        **{
            "method": "cutmix",
            "seed": 0,
            "data": "digits",
            "pixels": 8,
            "share": 0.1,
            "epochs": 2,
            "batch_size": 16,
            **settings,
        }
    )


def test_equal_settings_come_to_the_same():
    first, again = (execute(tiny(), NOWHERE, device=CPU, points=2) for _ in range(2))
    assert first == again
    for other in (tiny(seed=1), tiny(method="mixup"), tiny(label_noise=0.4), tiny(epochs=1), tiny(share=0.2)):
        assert execute(other, NOWHERE, device=CPU).loss != first.loss


def test_wrong_labels_are_exactly_as_many_and_never_the_test_sets():
    digits = load("digits", NOWHERE, 8)
    right = digits.train.tensors[1].clone()
    for noise, count in ((0.0, 0), (0.4, 359), (1.0, 898)):
        noisy = part(digits, label_noise=noise, seed=3)
        labels = torch.tensor([label for _, label in noisy.train])
        assert int((labels != right).sum()) == count
        assert set(labels.tolist()) == set(range(10))
        assert [label for _, label in noisy.test] == digits.test.tensors[1].tolist()
        assert all(torch.equal(noisy.test[i][0], digits.test[i][0]) for i in (0, 500, 898))
    assert torch.equal(digits.train.tensors[1], right)
    same, other = (part(digits, label_noise=0.4, seed=seed).train.labels for seed in (3, 4))
    assert same == part(digits, label_noise=0.4, seed=3).train.labels != other


def test_a_share_has_as_much_of_each_class():
    digits = load("digits", NOWHERE, 8)
    few = part(digits, share=0.1, seed=1)
    counts = torch.bincount(torch.tensor(few.train.labels))
    assert counts.tolist() == [round(0.1 * n) for n in torch.bincount(digits.train.tensors[1]).tolist()]
    assert digits.train.tensors[1][few.train.indices].tolist() == few.train.labels
    assert len(few.test) == 899
    others = part(digits, share=0.1, rest=True, seed=1)
    assert sorted([*few.train.indices, *others.train.indices]) == list(range(898))


def test_halves_of_the_classes_are_numbered_from_zero():
    digits = load("digits", NOWHERE, 8)
    first, second = (part(digits, classes=f"{name}-half") for name in ("first", "second"))
    assert first.classes == list("01234") and second.classes == list("56789")
    assert len(first.train) + len(second.train) == 898 and len(first.test) + len(second.test) == 899
    for half, start in ((first, 0), (second, 5)):
        assert isinstance(half.test, Labelled)
        assert [label + start for label in half.test.labels] == digits.test.tensors[1][half.test.indices].tolist()


def test_what_was_done_is_not_done_again(tmp_path, monkeypatch):
    file = tmp_path / "new" / "rows.jsonl"
    runs = [tiny(), tiny(method="plain")]
    rows = compare.carry_out(runs[:1], file, NOWHERE, device=CPU)
    with file.open("a") as open_file:
        open_file.write('{"run": {"method": "pl')  # as a kill in mid-write leaves it
    done = []
    monkeypatch.setattr(
        compare, "execute", lambda run, *given, **options: done.append(run) or execute(run, *given, **options)
    )
    again = compare.carry_out(runs, file, NOWHERE, device=CPU)
    assert done == runs[1:] and again[0] == rows[0]
    assert [json.loads(line) for line in file.read_text().splitlines()] == again == compare.read(file)
    assert again[1]["run"] == asdict(runs[1]) and again[1]["made"]["threads"] == 1


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
    assert parameters == pytest.approx(published.get(name, parameters), rel=0.02)


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


@pytest.mark.parametrize(
    "text", [*RECIPES, "CutMix", "cutmix", "CutMix()", "RandomChoice([MixUp(alpha=0.8), CutMix()], p=[.2, .8])"]
)
def test_recipes_are_read(text):
    transform = parse(text)
    assert transform.make_plan(torch.empty(4, 1, 8, 8)).size == (8, 8)


def test_recipes_say_what_python_would():
    assert parse("MixUp(alpha=8)").alpha == 8
    assert parse(" CutMix( p = until(3, 0.5) ) ").p(2) == 0.5
    choice = parse("RandomChoice((MixUp(alpha=0.8), CutMix()))")
    assert [type(one) for one in choice.transforms] == [MixUp, CutMix]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("smoothmix", "one of .*mixup.*deit.*got 'smoothmix'|smoothmix is no call"),
        ("__import__('os').system('true')", r"__import__\('os'\).system is unknown here"),
        ("MixUp(alpha=open('x'))", "open is unknown here; known are .*MixUp"),
        ("MixUp(alpha=2 ** 8)", r"2 \*\* 8 is no call"),
        ("MixUp(**{})", r"takes no \*\*arguments"),
        ("MixUp(alpha=-1)", "alpha must be"),
        ("MixUp(beta=1)", "unexpected keyword argument 'beta'"),
        ("until(3)", "a transform must be"),
        ("MixUp(", "a transform must be"),
        ("(" * 5000, "a transform must be"),
        ("", "a transform must be"),
        ("\0", "a transform must be"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text, told):
    with pytest.raises(ValueError, match=f"(?s){told}"):
        parse(text)


def test_compare_from_the_command_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    common = ["compare", "--out", str(file), "--pixels", "8", "--share", "0.1", "--threads", "1", "--device", "cpu"]
    main(
        [
            *common,
            "--methods",
            "plain",
            "MixUp(alpha=8)",
            "--epochs",
            "1",
            "2",
            "--label-noise",
            "0",
            "0.4",
            "--seeds",
            "0",
        ]
    )
    rows = compare.read(file)
    assert len(rows) == 8
    assert {row["run"]["method"] for row in rows} == {"plain", "MixUp(alpha=8)"}
