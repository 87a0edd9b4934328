"""Makes the committed results of what pytest-benchmark measured; and the documents' tables and plots of those.

    python -m benchmarks.report condense RAW.json ...   # writes benchmarks/results/<cpu or gpu>-<commit>.json
                                                        # (--out: elsewhere; --plot: and pictures)
    python -m benchmarks.report documents               # rewrites the tables of README.md and the plots in images/
    python -m benchmarks.report show RESULTS.json       # each case against the fastest other, and the goals
    python -m benchmarks.report compare OLD.json NEW.json   # ratios only; status 1 if ours grew against the others

In a document, ``<!-- results:goals-cpu -->`` … ``<!-- /results -->`` encloses a table: ``goals``, ``machine`` or the
name of a benchmark file, then ``cpu`` or ``gpu``; ``results:peers-cpu:MixUp`` takes only cases that begin so.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import json
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
IMAGES = ROOT / "images"
PACKAGES = ("torch", "torchvision", "triton", "numpy", "numba", "timm", "kornia", "mixup")
MARKED = re.compile(r"(<!-- results:(?P<name>[^>]+?) -->\n).*?(<!-- /results -->)", re.DOTALL)
NOT_YET = "*Not measured yet.*\n"
NOT_MIXED = ("copy", "unmixed", "no mixing")  # how names begin of rows that are no rivals: they do less

Results = dict[str, Any]
Row = dict[str, Any]


def condense(raws: Sequence[Results], commit: str) -> Results:
    """What pytest-benchmark wrote, in one row a benchmark, and without what identifies the machine's owner."""
    machine = raws[0]["machine_info"]
    rows = [_row(benchmark) for raw in raws for benchmark in raw["benchmarks"]]
    kind = "gpu" if any(row["device"] == "cuda" for row in rows) else "cpu"
    cpu = f"{machine['cpu'].get('brand_raw', 'CPU')}, {machine['cpu'].get('count', '?')} cores"
    return {
        "kind": kind,
        "machine": machine["gpu"] if kind == "gpu" else cpu,
        "host": cpu,
        "threads": machine["threads"],
        "commit": commit,
        "date": max(raw["datetime"] for raw in raws)[:16],
        "versions": {"python": machine["python"], **_versions()},
        "rows": rows,
        "skipped": [skipped for raw in raws for skipped in raw.get("skipped", [])],
    }


def _row(benchmark: Row) -> Row:
    info, stats = benchmark["extra_info"], benchmark["stats"]
    file = Path(benchmark["fullname"].partition("::")[0]).stem.removeprefix("bench_")
    test = benchmark["name"].partition("[")[0].removeprefix("test_")
    median = stats["median"]
    moved, images = info.get("bytes", 0), info.get("images", 0)
    rates = {"images_per_second": images / median if images else info.get("images/s")}
    rates["gigabytes_per_second"] = moved / median / 1e9 if moved else None
    known = {"file", "question", "case", "rival", "device", "clock", "ours", "images", "bytes", "goals"}
    extra = {key: value for key, value in info.items() if isinstance(value, int) and key not in known}
    return {
        "file": file,
        "case": info.get("case") or f"{benchmark['group']} ({benchmark['param']})",
        "name": info.get("rival", test),
        "device": "cuda" if "cuda" in (benchmark["param"] or "") else "cpu",
        "clock": info.get("clock", "call"),
        "ours": info.get("ours", "ours"),
        "images": images,
        "bytes": moved,
        "median": _short(median),
        "iqr": _short(stats["iqr"]),
        "rounds": stats["rounds"],
        **{name: _short(rate) if rate else None for name, rate in rates.items()},
        "goals": info.get("goals", {}),
        "extra": extra,
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def current_commit() -> str:
    """The commit of the tree that is measured, or the hash of its sources where there is no git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short=9", "HEAD")
        return f"{commit}-dirty" if git("status", "--porcelain", "mixcollate", "benchmarks/*.py") else commit
    except (OSError, subprocess.CalledProcessError):
        sources = b"".join(path.read_bytes() for path in sorted((ROOT / "mixcollate").rglob("*.py")))
        return f"tree-{hashlib.sha1(sources, usedforsecurity=False).hexdigest()[:9]}"


def write(results: Results, folder: Path = RESULTS) -> Path:
    """Write results, one row a line; the file's path."""
    kind = "cpu" if results["kind"] == "cpu" else re.sub(r"[^a-z0-9]+", "-", results["machine"].lower())
    path = folder / f"{kind}-{results['commit']}.json"
    lists = {name: results[name] for name in ("rows", "skipped")}
    head = json.dumps({key: value for key, value in results.items() if key not in lists}, indent=1, ensure_ascii=False)
    parts = [
        f' "{name}": [\n' + ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows) + "\n ]"
        for name, rows in lists.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(head.removesuffix("\n}") + ",\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    return path


def latest(kind: str, folder: Path = RESULTS) -> tuple[Path, Results] | None:
    """The newest results of ``"cpu"`` or ``"gpu"``."""
    found = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    found = [(path, results) for path, results in found if results["kind"] == kind]
    return max(found, key=lambda one: (one[1]["date"], one[0].name), default=None)


def questions() -> dict[str, str]:
    """The first line of each benchmark file."""
    paths = sorted((ROOT / "benchmarks").glob("bench_*.py"))
    return {
        path.stem.removeprefix("bench_"): (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        for path in paths
    }


def cases(results: Results, file: str, prefix: str = "") -> dict[tuple[str, str, str], list[Row]]:
    """The rows of a benchmark file, by case, device and clock."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in results["rows"]:
        if row["file"] == file and row["case"].startswith(prefix):
            found.setdefault((row["case"], row["device"], row["clock"]), []).append(row)
    return found


def goal_rows(results: Results) -> list[tuple[str, float, bool]]:
    """Each goal that was measured: its code, its value, and whether it is reached."""
    values: dict[str, float] = {}
    for row in results["rows"]:
        for code, against in row["goals"].items():
            goal = GOALS[code]
            rivals = cases(results, row["file"], row["case"])[row["case"], row["device"], row["clock"]]
            times = [rival["median"] for rival in rivals if rival["name"] in against]
            if goal.unit.startswith("×") and times:
                values[code] = min(times) / row["median"] if goal.unit == "×" else row["median"] / min(times)
            elif goal.unit == "µs":
                values[code] = row["median"] * 1e6
            elif goal.unit in row["extra"]:
                values[code] = row["extra"][goal.unit]
    return [
        (code, values[code], values[code] >= goal.limit if goal.unit == "×" else values[code] <= goal.limit)
        for code, goal in GOALS.items()
        if code in values
    ]


def goal_table(results: Results) -> str:
    """The goals that were measured, reached or not."""
    lines = ["| | what | goal | measured | |", "|---|---|---|---|---|"]
    for code, value, reached in goal_rows(results):
        goal = GOALS[code]
        unit = "×" if goal.unit.startswith("×") else f" {goal.unit}"
        bound = f"{'≥' if goal.unit == '×' else '≤'} {goal.limit:g}{unit}"
        lines.append(
            f"| {code} | {goal.what} | {bound} | {_figures(value)}{unit} | {'' if reached else 'not reached'} |"
        )
    return "\n".join(lines) + "\n"


def table(results: Results, file: str, prefix: str = "") -> str:
    """All rows of a benchmark file: time, spread and rates, and how many times as long as ours each takes."""
    reference = next((row["ours"] for row in results["rows"] if row["file"] == file), "mixcollate")
    lines = [f"| | median ± IQR | images/s | GB/s | time, {reference} = 1 |", "|---|---|---|---|---|"]
    for (case, device, clock), rows in cases(results, file, prefix).items():
        where = f" ({device}, {clock})" if results["kind"] == "gpu" else ""
        lines.append(f"| **{case}**{where} | | | | |")
        ours = next((row["median"] for row in rows if row["name"] == row["ours"]), None)
        for row in rows:
            against = f"{_figures(row['median'] / ours)}×" if ours else ""
            rates = [_rate(row["images_per_second"]), _rate(row["gigabytes_per_second"])]
            more = "".join(f"; {key.replace('_', ' ')} {value}" for key, value in _counts(row).items())
            lines.append(f"| {row['name']}{more} | {_time(row)} | {rates[0]} | {rates[1]} | {against} |")
    if file == "growth":
        lines += ["", *fits(results)]
    absent = {(one["name"], one["reason"]) for one in results["skipped"] if one["file"] == file}
    notes = "".join(f"\nNot measured: {name} ({reason}).\n" for name, reason in sorted(absent))
    return "\n".join(lines) + "\n" + notes


def fits(results: Results) -> list[str]:
    """``constant + slope × size`` of each curve, fitted to relative errors, and how far the points lie from it."""
    lines = []
    for panel, curves in growth_curves(results).items():
        for name, points in curves.items():
            sizes, times = (list(column) for column in zip(*points, strict=True))
            constant, slope = _line(sizes, times)
            off = max(abs((constant + slope * size) / seconds - 1) for size, seconds in points)
            lines.append(
                f"- {panel}, {name}: {_figures(constant * 1e6)} µs + {_figures(slope * 1e9)} ns for each; points lie "
                f"within {off:.0%} of it"
            )
    return lines


def growth_curves(results: Results) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """(size, seconds) of each rival: for the batch, the pixels and the classes."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    wanted = "cuda" if results["kind"] == "gpu" else "cpu"
    for (case, device, _), rows in cases(results, "growth").items():
        for row in rows if device == wanted else ():
            curve = curves.setdefault(case.partition(" ")[0], {}).setdefault(row["name"], [])
            curve.append((row["extra"]["size"], row["median"]))
    return {panel: {name: sorted(points) for name, points in named.items()} for panel, named in curves.items()}


def _line(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Constant (not below 0) and slope with the least squares of relative errors."""
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


def _time(row: Row) -> str:
    scale, unit = (1e6, "µs") if row["median"] < 1e-3 else (1e3, "ms") if row["median"] < 1 else (1, "s")
    return f"{_figures(row['median'] * scale)} ± {_figures(row['iqr'] * scale)} {unit}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else _figures(value)


def _figures(value: float) -> str:
    """Three figures, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    value = float(f"{value:.3g}") if abs(value) < 1000 else value
    digits = max(2 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text and abs(value) >= 100 else text


def machine_line(results: Results) -> str:
    """What measured, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    device = results["machine"] if results["kind"] == "cpu" else f"{results['machine']} (host: {results['host']})"
    return (
        f"{device}; {results['threads']} CPU thread(s) of PyTorch; {versions}; commit {results['commit']}, "
        f"{results['date'][:10]}.\n"
    )


def section(name: str, found: Results | None) -> str:
    """What stands between the markers of ``name``, made of the results of its kind."""
    what, _, prefix = name.partition(":")
    file = what.rpartition("-")[0]
    if file not in ("goals", "machine", *questions()):
        raise ValueError(f"no table is called {name!r}: it must be goals-, machine- or a benchmark file's name")
    if found is None:
        return NOT_YET
    if file == "goals":
        return goal_table(found)
    return machine_line(found) if file == "machine" else table(found, file, prefix)


def filled(text: str, folder: Path = RESULTS) -> str:
    """A document with every table between markers made anew."""

    def replace(match: re.Match[str]) -> str:
        kind = match["name"].partition(":")[0].rpartition("-")[2]
        found = latest(kind, folder)
        return match[1] + section(match["name"], found and found[1]) + match[3]

    return MARKED.sub(replace, text)


def write_documents() -> list[Path]:
    """Rewrite the tables of the documents, and the plots; what was written."""
    written = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            path.write_text(filled(text), encoding="utf-8")
            written.append(path)
    for kind in ("cpu", "gpu"):
        found = latest(kind)
        if found is not None:
            written += plot(*found)
    return written


def plot(source: Path, results: Results, folder: Path = IMAGES, kind: str = "svg") -> list[Path]:
    """Draw the results; each picture says which file it is made of. The documents' are SVG; PNG has one more."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update(
        {"svg.hashsalt": "mixcollate", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
    )
    matplotlib.rcParams.update({"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3})
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    draws = {"growth": _draw_growth, "peers": _draw_peers, "loader": _draw_loader}
    undated: dict[str, Any] = {"Date": None}  # so that the same results make the same file
    if kind == "png":
        draws, undated = {"fastest": _draw_fastest, **draws}, {}
    for name, draw in draws.items():
        figure = draw(pyplot, results)
        if figure is None:
            continue
        path = folder / f"{name}-{results['kind']}.{kind}"
        figure.suptitle(f"{results['machine']}, torch {results['versions'].get('torch', '?')}, {results['commit']}")
        figure.savefig(path, metadata={**undated, "Source": source.name}, bbox_inches="tight", dpi=150)
        pyplot.close(figure)
        written.append(path)
    return written


def _draw_fastest(pyplot: Any, results: Results) -> Any:
    """How many times as long as ours the fastest other takes, for each case that has one."""
    found = [(file, where, duel(rows)) for file in questions() for where, rows in cases(results, file).items()]
    duels = [(f"{file}: {_where(where, results)}", *two) for file, where, two in found if two]
    if not duels:
        return None
    names = [name for name, _, _ in duels]
    ratios = [other["median"] / ours["median"] for _, ours, other in duels]
    figure, axis = pyplot.subplots(figsize=(10, 0.24 * len(duels) + 1.4), layout="constrained")
    drawn = axis.barh(
        names,
        [ratio - 1 for ratio in ratios],
        left=1,
        color=["#2a6f97" if ratio >= 1 else "#c1121f" for ratio in ratios],
    )
    for bar, ratio, (_, _, other) in zip(drawn, ratios, duels, strict=True):
        # a loss is told on the other side of the line, where its bar is not
        axis.annotate(
            f"{_figures(ratio)}×  {other['name']}", (max(ratio, 1), bar.get_y() + bar.get_height() / 2),
            (3, 0), textcoords="offset points", va="center", fontsize=7,
        )  # fmt: skip
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set(xscale="log", xlabel="time of the fastest other, ours = 1\nblue: we are faster; red: we lose")
    low, high = min(0.5, *ratios), max(2.0, *ratios)
    steps = (1,) if high / low > 20 else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(-6, 7) for step in steps]
    axis.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlim(low / 1.1, high * (high / low) ** 0.6)  # room for the last label
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", labelsize=7)
    axis.invert_yaxis()
    axis.margins(y=0.5 / len(duels))
    return figure


def _draw_growth(pyplot: Any, results: Results) -> Any:
    """Time over size, for the batch, the pixels and the classes."""
    panels = {"batch": "images of 32×32", "pixels": "pixels of each of 64 images", "classes": "classes"}
    lines = growth_curves(results)
    if not lines:
        return None
    figure, axes = pyplot.subplots(1, len(lines), figsize=(3.4 * len(lines), 3.2), squeeze=False, layout="constrained")
    for axis, (panel, named) in zip(axes[0], lines.items(), strict=True):
        for name, points in named.items():
            sizes, seconds = zip(*points, strict=True)
            axis.plot(sizes, [1e3 * one for one in seconds], marker="o", markersize=3, label=name)
        axis.set(xscale="log", yscale="log", xlabel=panels.get(panel, panel))
    axes[0][0].set_ylabel("milliseconds a call")
    figure.legend(*axes[0][0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    return figure


def _draw_peers(pyplot: Any, results: Results) -> Any:
    """Images a second of each rival, for the cases that most peers have."""
    gpu = results["kind"] == "gpu"
    wanted = (
        ("peers", "MixUp, float32"),
        ("peers", "CutMix"),
        ("peers", "uint8 to normalised"),
        ("collate", "collate"),
    )
    bars = {}
    for file, prefix in wanted:
        for (case, device, clock), rows in cases(results, file, prefix).items():
            if (
                (device, clock) == (("cuda", "device") if gpu else ("cpu", "call"))
                and len(rows) > 3
                and "channels_last" not in case
            ):
                bars[case] = sorted(rows, key=lambda row: -row["median"])
    if not bars:
        return None
    heights = [len(rows) + 2 for rows in bars.values()]
    figure, axes = pyplot.subplots(
        len(bars), 1, figsize=(8, 0.24 * sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axis, (case, rows) in zip(axes[:, 0], bars.items(), strict=True):
        colours = ["#2a6f97" if is_ours(row) else "#c9c9c9" if row["name"] == "copy" else "#e09f3e" for row in rows]
        drawn = axis.barh([row["name"] for row in rows], [row["images_per_second"] for row in rows], color=colours)
        axis.bar_label(drawn, [_rate(row["images_per_second"]) for row in rows], padding=3, fontsize=7)
        axis.set_title(f"{case}: images a second", loc="left", fontsize=9)
        axis.margins(x=0.12)
        axis.tick_params(axis="y", labelsize=7)
    return figure


def _draw_loader(pyplot: Any, results: Results) -> Any:
    """Images a second over workers."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for (case, device, _), rows in cases(results, "loader", "uint8 in memory").items():
        if (device == "cuda" and " pinned" in case) or (results["kind"] == "cpu"):
            for row in rows:
                lines.setdefault(row["name"], []).append((row["extra"]["workers"], row["images_per_second"]))
    if not lines:
        return None
    figure, axis = pyplot.subplots(figsize=(7, 4))
    for name, points in lines.items():
        axis.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=name)
    workers = sorted({count for points in lines.values() for count, _ in points})
    axis.set(xlabel="workers", ylabel="images a second", ylim=(0, None), xticks=workers)
    axis.legend(frameon=False, fontsize=7)
    return figure


def is_ours(row: Row) -> bool:
    """Whether this library is what the row measures."""
    only_ours = row["file"] == "cost" or (row["file"] == "host" and row["case"].startswith("a plan"))
    return row["name"].startswith(("mixcollate", "ours")) or (only_ours and row["name"] != "copy")


def duel(rows: Sequence[Row]) -> tuple[Row, Row] | None:
    """Our row of a case, and the fastest of the others that mix; ``None`` if there are none."""
    mixing = [row for row in rows if not row["name"].startswith(NOT_MIXED)]
    named = [row for row in mixing if row["name"] == row["ours"]]  # not there where ours are compared with no mixing
    ours = named or [row for row in mixing if row["name"] == "mixcollate"]
    others = [row for row in mixing if not is_ours(row)]
    return (ours[0], min(others, key=lambda row: row["median"])) if ours and others else None


def _where(case: tuple[str, str, str], results: Results) -> str:
    """A case's name; on a GPU with the device and the clock."""
    name, device, clock = case
    return f"{name} ({device}, {clock})" if results["kind"] == "gpu" else name


def compare(old: Results, new: Results, tolerance: float) -> tuple[str, bool]:
    """How our times changed against the others' of the same case and run; and whether any grew beyond tolerance."""
    lines, grown, compared = [], False, 0
    before = {_key(row): row["median"] for row in old["rows"]}
    for file in questions():
        for rows in cases(new, file).values():
            anchors = [row for row in rows if not is_ours(row) and _key(row) in before]
            for row in rows:
                if not (is_ours(row) and anchors and _key(row) in before):
                    continue
                compared += 1
                # the others have not changed, so what they take now and took then is the machine's doing
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


def show(results: Results) -> str:
    """Results as text: ours against the fastest other of each case, all rows where there is none; and last the goals,
    because a terminal, or whatever keeps the end of a long output, shows what comes last.
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
                    f"  {'':10}{_where(case, results)}",
                    *(f"  {'':12}{_time(row):>20}  {row['name']}" for row in rows),
                ]
                continue
            ratio = two[1]["median"] / two[0]["median"]
            times = " against ".join(f"{_time(row)} ({row['name']})" for row in two)
            lines.append(f"{'  ' if ratio >= 1 else '! '}{_figures(ratio):>7}×  {_where(case, results)}: {times}")
        if found:
            lines.append("")
    if results["rows"]:
        lines.append("N×: the fastest other takes N times as long as ours. !: it is faster, or a goal is not reached.")
    lines.append(machine_line(results))
    for code, value, reached in goal_rows(results):
        goal = GOALS[code]
        lines.append(f"{'  ' if reached else '! '}{code:30}{value:10.2f} {goal.unit:12} goal {goal.limit:g}")
    return "\n".join(lines)


def pictures(source: Path, results: Results) -> str:
    """Draw PNGs beside ``source``; where they lie, or why there are none."""
    try:
        drawn = plot(source, results, source.parent, "png")
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        return 'no picture: matplotlib is missing: pip install "mixcollate[bench]"'
    return "\n".join(f"picture: {path}" for path in drawn) or "no picture: none of this has a rival or a size to draw"


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.report", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("condense", help="raw files of pytest-benchmark to a file in benchmarks/results")
    command.add_argument("raw", nargs="+", type=Path)
    command.add_argument("--commit", default=None, help="what was measured; default: the checked-out commit")
    command.add_argument("--out", type=Path, default=RESULTS, help="folder")
    command.add_argument("--plot", action="store_true", help="draw PNGs beside the file")
    commands.add_parser("documents", help="rewrite the tables and plots of the documents")
    commands.add_parser("show", help="print results").add_argument("file", type=Path)
    command = commands.add_parser("compare", help="ratios of two results")
    command.add_argument("old", type=Path)
    command.add_argument("new", type=Path)
    command.add_argument("--tolerance", type=float, default=1.25)
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.command == "condense":
        raws = [json.loads(path.read_text(encoding="utf-8")) for path in options.raw]
        path = write(condense(raws, options.commit or current_commit()), options.out)
        print(f"results: {path}")
        results = json.loads(path.read_text(encoding="utf-8"))
        print(show(results))
        if options.plot:
            print(pictures(path, results))
    elif options.command == "documents":
        print(*write_documents(), sep="\n")
    elif options.command == "show":
        print(show(json.loads(options.file.read_text(encoding="utf-8"))))
    else:
        old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (options.old, options.new))
        text, grown = compare(old, new, options.tolerance)
        print(text)
        return int(grown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
