"""Benchmark results: condense, write and read them, and extract their cases, duels and goals."""

import ast
import hashlib
import importlib.metadata
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "torchvision", "triton", "numpy", "numba", "timm", "kornia", "mixup")
NOT_MIXED = ("copy", "unmixed", "no mixing")  # prefixes of rows that do less work, and so are not rivals

Results = dict[str, Any]
Row = dict[str, Any]


def condense(raws: Sequence[Results], commit: str) -> Results:
    """The output of pytest-benchmark with one row for each benchmark, without what identifies the machine's owner."""
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
        "ours": info.get("ours", "mixcollate"),
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
    """The commit of the working tree, or a hash of the sources if there is no git."""

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
    """Write results to a file, one row per line; return its path."""
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
    """The newest results for ``"cpu"`` or ``"gpu"``."""
    return next(reversed(_by_date(kind, folder)), None)


def machines(kind: str, folder: Path = RESULTS) -> list[Results]:
    """The newest results of each machine for ``"cpu"`` or ``"gpu"``, the newest first."""
    newest = {results["machine"]: results for _, results in _by_date(kind, folder)}
    return sorted(newest.values(), key=lambda results: results["date"], reverse=True)


def _by_date(kind: str, folder: Path) -> list[tuple[Path, Results]]:
    """All results for ``"cpu"`` or ``"gpu"``, each with its file, the newest last."""
    read = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    found = [(path, results) for path, results in read if results["kind"] == kind]
    return sorted(found, key=lambda one: (one[1]["date"], one[0].name))


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
    """The goals that were measured: code, value, and whether it is reached."""
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


def growth_curves(results: Results) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """``(size, seconds)`` of each rival, over the batch size, the pixels and the classes."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    wanted = "cuda" if results["kind"] == "gpu" else "cpu"
    for (case, device, _), rows in cases(results, "growth").items():
        for row in rows if device == wanted else ():
            curve = curves.setdefault(case.partition(" ")[0], {}).setdefault(row["name"], [])
            curve.append((row["extra"]["size"], row["median"]))
    return {panel: {name: sorted(points) for name, points in named.items()} for panel, named in curves.items()}


def is_ours(row: Row) -> bool:
    """Whether the row measures this library."""
    only_ours = row["file"] == "cost" or (row["file"] == "host" and row["case"].startswith("a plan"))
    return row["name"].startswith("mixcollate") or (only_ours and row["name"] != "copy")


def duel(rows: Sequence[Row]) -> tuple[Row, Row] | None:
    """Our row of a case and that of the fastest rival; ``None`` if there is none."""
    mixing = [row for row in rows if not row["name"].startswith(NOT_MIXED)]
    named = [row for row in mixing if row["name"] == row["ours"]]  # missing if ours are compared with no mixing
    ours = named or [row for row in mixing if row["name"] == "mixcollate"]
    others = [row for row in mixing if not is_ours(row)]
    return (ours[0], min(others, key=lambda row: row["median"])) if ours and others else None
