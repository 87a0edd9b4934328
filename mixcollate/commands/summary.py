"""Summaries of results: means, paired differences with confidence intervals, tables, and the command to repeat them."""

import math
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from mixcollate.commands.training import Run

Row = dict[str, Any]
"""A line of the results: a run, its outcome, and how it was made."""


SEVERAL = ("epochs", "start", "share", "label_noise")
"""The settings, beside method and seed, that can have several values in one comparison."""


class Estimate(NamedTuple):
    """A mean over seeds and its standard error, which is NaN for one seed."""

    mean: float
    error: float
    seeds: int

    def text(self, digits: int = 1) -> str:
        """``"95.1 ± 0.2"``."""
        return f"{self.mean:.{digits}f}" + (f" ± {self.error:.{digits}f}" if self.seeds > 1 else "")


class Difference(NamedTuple):
    """A mean paired difference and its confidence interval, which is NaN for one pair."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0, so that the sign of the difference is significant."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.1f}" + (f" [{self.low:+.1f}, {self.high:+.1f}]" if self.seeds > 1 else "")


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of the values and its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(statistics.fmean(values), error, len(values))


def difference(before: Sequence[float], after: Sequence[float]) -> Difference:
    """``after - before``, pair by pair, with Student's 95 % interval, which assumes roughly normal differences."""
    from scipy.stats import t  # type: ignore[attr-defined]

    gains = [b - a for a, b in zip(before, after, strict=True)]
    mean, error, seeds = estimate(gains)
    reach = float(t.ppf(0.975, seeds - 1)) * error if seeds > 1 else math.nan
    return Difference(mean, mean - reach, mean + reach, seeds)


class Line(NamedTuple):
    """One method in one setting."""

    setting: tuple[Any, ...]
    method: str
    rows: list[Row]
    gain: Difference | None
    """In accuracy, over the first method, for the seeds that both have; ``None`` for the first itself."""

    def of(self, name: str) -> Estimate:
        """An outcome over the seeds: ``"accuracy"``, ``"calibration_error"``, ..."""
        return estimate([row["outcome"][name] for row in self.rows])


def varying(rows: Sequence[Row]) -> list[str]:
    """The settings in which rows differ, except method and seed."""
    names = [field.name for field in fields(Run) if field.name not in ("method", "seed")]
    return [name for name in names if len({row["run"][name] for row in rows}) > 1]


def lines(rows: Sequence[Row]) -> list[Line]:
    """A line for each setting, in the order of values, ``None`` last, and method, in the order of the rows."""
    names = varying(rows)
    methods = list(dict.fromkeys(row["run"]["method"] for row in rows))
    found: dict[tuple[Any, ...], dict[str, dict[int, Row]]] = {}
    for row in rows:
        setting = tuple(row["run"][name] for name in names)
        found.setdefault(setting, {}).setdefault(row["run"]["method"], {})[row["run"]["seed"]] = row
    result = []
    for setting in sorted(found, key=lambda values: [(value is None, value) for value in values]):
        first = found[setting].get(methods[0], {})
        for method in methods:
            seeds = found[setting].get(method, {})
            both = sorted(seeds.keys() & first.keys())
            plain, mixed = ([one[seed]["outcome"]["accuracy"] for seed in both] for one in (first, seeds))
            gain = difference(plain, mixed) if both and method != methods[0] else None
            if seeds:
                result.append(Line(setting, method, list(seeds.values()), gain))
    return result


COLUMNS = {
    "accuracy": ("accuracy", 1),
    "calibration_error": ("ECE", 1),
    "tempered_calibration_error": ("ECE at T", 1),
    "temperature": ("T", 2),
    "loss": ("loss", 2),
}
"""The outcomes in a table: header and number of decimals."""
LEGEND = (
    "On the test set: means over seeds ± standard errors. Accuracy and expected calibration error (ECE) in per cent, "
    "the difference in points with Student's 95 % interval, paired by seed. T is the temperature by which logits are "
    "divided, fitted on other images."
)


def cells(rows: Sequence[Row], columns: Sequence[str] = tuple(COLUMNS)) -> list[list[str]]:
    """A table of strings: the header, then a row for each line."""
    first, *others = columns
    head = [*(name.replace("_", " ") for name in varying(rows)), "method", COLUMNS[first][0]]
    head += [f"against {rows[0]['run']['method']}", *(COLUMNS[name][0] for name in others)]
    body = []
    for line in lines(rows):
        texts = [line.of(name).text(COLUMNS[name][1]) for name in columns]
        gain = "" if line.gain is None else str(line.gain)
        body.append([*map(str, line.setting), line.method, texts[0], gain, *texts[1:]])
    return [head, *body]


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table of strings in Markdown; its first row is the header."""
    head, *body = table
    parts = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(part)} |\n" for part in parts)


def command(rows: Sequence[Row]) -> str:
    """The command line that makes these rows, without ``--out``, and without the ``--root`` of data known by name."""
    first = rows[0]["run"]
    plain = Run(method="plain", seed=0, **{name: first[name] for name in ("data", "architecture")})
    words = ["mixcollate", "compare", "--data", first["data"]]
    for name in (field.name for field in fields(Run)):
        values = list(dict.fromkeys(row["run"][name] for row in rows))
        if name in ("method", "seed"):
            continue
        if len(values) > 1 and name not in SEVERAL:
            raise ValueError(f"rows of one command must agree on {name}, got {values}")
        if values != [getattr(plain, name)] or name in ("architecture", "epochs"):
            words += [f"--{name.replace('_', '-')}", *map(_word, values)]
    for name in ("method", "seed"):
        words += [f"--{name}s", *map(str, dict.fromkeys(row["run"][name] for row in rows))]
    points = max(len(row["outcome"]["curve"]) for row in rows)
    words += ["--points", str(points)] if points > 1 else []
    made = rows[0]["made"]
    words += ["--root", made["root"]] if made.get("root") else []
    return shlex.join([*words, "--threads", str(made["threads"])])


def _word(value: Any) -> str:
    # with all digits: it is to be the same number again
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
