"""Results as text: tables for the documents, a summary for the terminal, and a comparison of two runs."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.goals import GOALS
from benchmarks.results import (
    RESULTS,
    Results,
    Row,
    cases,
    duel,
    goal_rows,
    growth_curves,
    is_ours,
    latest,
    machines,
    questions,
)

MARKED = re.compile(r"(<!-- results:(?P<name>[^>]+?) -->\n).*?(<!-- /results -->)", re.DOTALL)
NOT_YET = "*Not measured yet.*\n"

OURS = ("mixcollate", "mixcollate in place")
COLUMNS = ("copy", *OURS, "torchvision", "timm", "kornia", "torch.compile")
"""Of the overview: names of rows; for other libraries the fastest of those that begin so."""


def filled(text: str, folder: Path = RESULTS) -> str:
    """A document with the tables between its markers regenerated."""

    def replace(match: re.Match[str]) -> str:
        kind = match["name"].partition(":")[0].rpartition("-")[2]
        newest = latest(kind, folder)
        # results of one GPU do not hold for others; for CPUs the newest results are enough
        found = machines(kind, folder) if kind == "gpu" else [newest[1]] if newest else []
        return match[1] + section(match["name"], found) + match[3]

    return MARKED.sub(replace, text)


def section(name: str, found: Sequence[Results]) -> str:
    """The text between the markers of ``name``: goals in one table with a column for each machine, anything else in a
    table for each machine.
    """
    what, _, prefix = name.partition(":")
    file = what.rpartition("-")[0]
    other = {"machine": machine_line, "overview": overview}
    if file not in ("goals", "missed", *other, *questions()):
        raise ValueError(
            f"no table is called {name!r}: it must be goals-, missed-, machine-, overview- or a benchmark file's name"
        )
    if not found:
        return NOT_YET
    if file in ("goals", "missed"):
        return goal_table(found, only_missed=file == "missed")
    parts = [other[file](one) if file in other else table(one, file, prefix) for one in found]
    if len(found) == 1 or file == "machine":
        return "\n".join(parts)
    return "\n".join(f"{one['machine']}:\n\n{part}" for one, part in zip(found, parts, strict=True))


def overview(results: Results) -> str:
    """Times of the operations that several libraries have, a line for each, with the fastest in bold."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for case, rows in cases(results, "peers").items():
        times = {name: seconds for name in COLUMNS if (seconds := _fastest(rows, name)) is not None}
        if len([name for name in times if name not in ("copy", *OURS)]) > 1:
            fastest = min(times.keys() - {"copy"}, key=times.__getitem__)
            cells = [time_of(times[name]) if name in times else "" for name in COLUMNS]
            cells[COLUMNS.index(fastest)] = f"**{time_of(times[fastest])}**"
            lines.append(f"| {case_name(case, results)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _fastest(rows: Sequence[Row], name: str) -> float | None:
    """The time of our row of that name, or of the fastest of another library's."""
    found = [row for row in rows if row["name"] == name or (name not in OURS and row["name"].startswith(name))]
    return min([row["median"] for row in found], default=None)


def goal_table(found: Sequence[Results], *, only_missed: bool = False) -> str:
    """A table of the goals that were measured (or that a machine missed), with a column for each machine."""
    measured = [{code: (value, reached) for code, value, reached in goal_rows(one)} for one in found]
    heads = ["measured"] if len(found) == 1 else [one["machine"] for one in found]
    lines = [f"| | what | goal | {' | | '.join(heads)} | |", "|---|---|---|" + "---|---|" * len(found)]
    for code, goal in GOALS.items():
        reached = [one[code][1] for one in measured if code in one]
        if not reached or (only_missed and all(reached)):
            continue
        unit = "×" if goal.unit.startswith("×") else f" {goal.unit}"
        bound = f"{'≥' if goal.unit == '×' else '≤'} {goal.limit:g}{unit}"
        cells = [_goal_cells(one.get(code), unit) for one in measured]
        lines.append(f"| {code} | {goal.what} | {bound} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _goal_cells(measured: tuple[float, bool] | None, unit: str) -> str:
    if measured is None:
        return " | "
    value, reached = measured
    return f"{three_figures(value)}{unit} | {'' if reached else 'not reached'}"


def table(results: Results, file: str, prefix: str = "") -> str:
    """A table of a benchmark file: times, spread and rates, and the time relative to ours."""
    reference = next((row["ours"] for row in results["rows"] if row["file"] == file), "mixcollate")
    lines = [f"| | median ± IQR | images/s | GB/s | time, {reference} = 1 |", "|---|---|---|---|---|"]
    for (case, device, clock), rows in cases(results, file, prefix).items():
        where = f" ({device}, {clock})" if results["kind"] == "gpu" else ""
        lines.append(f"| **{case}**{where} | | | | |")
        ours = next((row["median"] for row in rows if row["name"] == row["ours"]), None)
        for row in rows:
            against = f"{three_figures(row['median'] / ours)}×" if ours else ""
            rates = [rate(row["images_per_second"]), rate(row["gigabytes_per_second"])]
            more = "".join(f"; {key.replace('_', ' ')} {value}" for key, value in _counts(row).items())
            lines.append(f"| {row['name']}{more} | {time_and_spread(row)} | {rates[0]} | {rates[1]} | {against} |")
    if file == "growth":
        lines += ["", *fits(results)]
    absent = {(one["name"], one["reason"]) for one in results["skipped"] if one["file"] == file}
    notes = "".join(f"\nNot measured: {name} ({reason}).\n" for name, reason in sorted(absent))
    return "\n".join(lines) + "\n" + notes


def fits(results: Results) -> list[str]:
    """The fit ``constant + slope × size`` of each curve, and the largest relative error."""
    lines = []
    for panel, curves in growth_curves(results).items():
        for name, points in curves.items():
            sizes, times = (list(column) for column in zip(*points, strict=True))
            constant, slope = line_through(sizes, times)
            off = max(abs((constant + slope * size) / seconds - 1) for size, seconds in points)
            line = f"{three_figures(constant * 1e6)} µs + {three_figures(slope * 1e9)} ns for each"
            lines.append(f"- {panel}, {name}: {line}; points lie within {off:.0%} of it")
    return lines


def line_through(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Constant (not below 0) and slope by least squares of relative errors."""
    weights = [1 / value**2 for value in values]

    def mean(numbers: Iterable[float]) -> float:
        return sum(w * n for w, n in zip(weights, numbers, strict=True)) / sum(weights)

    x, y = mean(sizes), mean(values)
    spread = mean((size - x) ** 2 for size in sizes)
    slope = mean((size - x) * (value - y) for size, value in zip(sizes, values, strict=True)) / (spread or 1)
    if y - slope * x >= 0:
        return y - slope * x, slope
    products = mean(size * value for size, value in zip(sizes, values, strict=True))
    return 0.0, products / mean(size**2 for size in sizes)


def _counts(row: Row) -> dict[str, int]:
    return {key: row["extra"][key] for key in ("kernels", "copies", "synchronisations") if key in row["extra"]}


def machine_line(results: Results) -> str:
    """The machine and the versions, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    device = results["machine"] if results["kind"] == "cpu" else f"{results['machine']} (host: {results['host']})"
    return (
        f"{device}; {results['threads']} CPU thread(s) of PyTorch; {versions}; commit {results['commit']}, "
        f"{results['date'][:10]}.\n"
    )


def show(results: Results) -> str:
    """A summary for the terminal: for each case ours against the fastest other, or all rows if there is none; the goals
    last, since the end of a long output is what remains visible.
    """
    lines = []
    for file, question in questions().items():
        found = cases(results, file)
        if found:
            lines.append(f"{file}: {question}")
        for case, rows in found.items():
            two = duel(rows)
            if two is None:
                lines += [
                    f"  {'':10}{case_name(case, results)}",
                    *(f"  {'':12}{time_and_spread(row):>20}  {row['name']}" for row in rows),
                ]
                continue
            ratio = two[1]["median"] / two[0]["median"]
            times = " against ".join(f"{time_and_spread(row)} ({row['name']})" for row in two)
            lines.append(
                f"{'  ' if ratio >= 1 else '! '}{three_figures(ratio):>7}×  {case_name(case, results)}: {times}"
            )
        if found:
            lines.append("")
    if results["rows"]:
        lines.append("N×: the fastest other takes N times as long as ours. !: it is faster, or a goal is not reached.")
    lines.append(machine_line(results))
    for code, value, reached in goal_rows(results):
        goal = GOALS[code]
        lines.append(f"{'  ' if reached else '! '}{code:30}{value:10.2f} {goal.unit:12} goal {goal.limit:g}")
    return "\n".join(lines)


def compare(old: Results, new: Results, tolerance: float) -> tuple[str, bool]:
    """How our times changed relative to those of others in the same case, and whether any grew beyond ``tolerance``."""
    lines, grown, compared = [], False, 0
    before = {_key(row): row["median"] for row in old["rows"]}
    for file in questions():
        for rows in cases(new, file).values():
            anchors = [row for row in rows if not is_ours(row) and _key(row) in before]
            for row in rows:
                if not (is_ours(row) and anchors and _key(row) in before):
                    continue
                compared += 1
                # the code of the others is unchanged, so a change of their times is due to the machine
                drift = statistics.geometric_mean([one["median"] / before[_key(one)] for one in anchors])
                change = row["median"] / before[_key(row)] / drift
                worse = change > tolerance
                grown |= worse
                if worse or change < 1 / tolerance:
                    lines.append(
                        f"{change:5.2f}×  {'slower' if worse else 'faster'}  {file}: {row['case']}: {row['name']}"
                    )
    if not compared:
        raise SystemExit(
            "nothing to compare: the two results have no case in common in which both have ours and others"
        )
    head = f"{old['commit']} to {new['commit']}: our times against the others', beyond {tolerance:g}×:"
    return "\n".join([head, *(sorted(lines, reverse=True) or ["none"])]), grown


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in ("file", "case", "name", "device", "clock"))


def case_name(case: tuple[str, str, str], results: Results) -> str:
    """The name of a case, on a GPU with the device and the clock."""
    name, device, clock = case
    return f"{name} ({device}, {clock})" if results["kind"] == "gpu" else name


def time_and_spread(row: Row) -> str:
    scale, unit = _unit(row["median"])
    return f"{three_figures(row['median'] * scale)} ± {three_figures(row['iqr'] * scale)} {unit}"


def time_of(seconds: float) -> str:
    scale, unit = _unit(seconds)
    return f"{three_figures(seconds * scale)} {unit}"


def _unit(seconds: float) -> tuple[float, str]:
    return (1e6, "µs") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1, "s")


def rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else three_figures(value)


def three_figures(value: float) -> str:
    """Three figures, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    value = float(f"{value:.3g}") if abs(value) < 1000 else value
    digits = max(2 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text and abs(value) >= 100 else text
