"""Plots of a comparison: accuracy during training, against its length and against wrong labels, and calibration."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixcollate.commands import refusing
from mixcollate.commands.summary import Row, estimate, varying

COLOURS = ("#000000", "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#b5835a", "#ff9da7")
STYLES = ("-", "--", ":")
NAMES = {"epochs": "epochs", "label_noise": "wrong labels", "share": "share of the images", "start": "start"}


def draw(rows: Sequence[Row], folder: Path, prefix: str = "", kind: str = "png") -> list[Path]:
    """Write plots of these rows as ``<prefix><picture>.<kind>``; needs no display."""
    import matplotlib

    several = varying(rows)
    pictures = {"calibration": calibration(rows)}
    if any(len(row["outcome"]["curve"]) > 1 for row in rows):
        pictures["accuracy"] = along(rows)
    if "epochs" in several:
        pictures["schedules"] = against(rows, "epochs")
    if len({row["run"]["label_noise"] for row in rows}) > 2:
        pictures["noise"] = against(rows, "label_noise")
    written = []
    for name, figure in pictures.items():
        path = folder / f"{prefix}{name}.{kind}"
        undated: dict[str, Any] = {"Date": None} if kind == "svg" else {}  # the same rows give the same file
        with (
            matplotlib.rc_context({"svg.hashsalt": "mixcollate", "svg.fonttype": "none"}),
            refusing(f"pictures must be files that can be written, got {path}", OSError),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150, metadata=undated)
        written.append(path)
    return written


def along(rows: Sequence[Row]) -> Any:
    """Test accuracy during training: means over the seeds, with standard errors as bands."""
    settings = _settings(rows, varying(rows))
    figure, axes = _panels(len(settings), "epochs", "test accuracy, %")
    for axis, (title, members) in zip(axes, settings, strict=True):
        axis.set_title(title, fontsize=9)
        for method, style, found in _methods(rows, members):
            curves = [dict(map(tuple, row["outcome"]["curve"])) for row in found]
            epochs = [epoch for epoch in curves[0] if all(epoch in curve for curve in curves)]
            estimates = [estimate([curve[epoch] for curve in curves]) for epoch in epochs]
            axis.plot(epochs, [one.mean for one in estimates], label=method, **style)
            if len(found) > 1:
                low, high = ([one.mean + sign * one.error for one in estimates] for sign in (-1, 1))
                axis.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    _finish(figure, axes)
    return figure


def against(rows: Sequence[Row], name: str) -> Any:
    """Final test accuracy against one setting, in a panel for each value of the others: means and standard errors."""
    others = [other for other in varying(rows) if other != name]
    settings = _settings(rows, others)
    figure, axes = _panels(len(settings), NAMES[name], "test accuracy at the end, %")
    for axis, (title, members) in zip(axes, settings, strict=True):
        axis.set_title(title, fontsize=9)
        values = sorted({row["run"][name] for row in members})
        if name == "epochs":
            axis.set_xscale("log")
            axis.set_xticks(values, [str(value) for value in values])
            axis.minorticks_off()
        for method, style, found in _methods(rows, members):
            at = {value: [r["outcome"]["accuracy"] for r in found if r["run"][name] == value] for value in values}
            estimates = {value: estimate(accuracies) for value, accuracies in at.items() if accuracies}
            means, errors = ([getattr(one, part) for one in estimates.values()] for part in ("mean", "error"))
            axis.errorbar(list(estimates), means, errors, label=method, capsize=2, marker="o", markersize=3, **style)
    _finish(figure, axes)
    return figure


def calibration(rows: Sequence[Row]) -> Any:
    """Reliability: accuracy of predictions against their confidence, as trained and after temperature scaling."""
    last = max(row["run"]["epochs"] for row in rows)
    chosen = [row for row in rows if row["run"]["epochs"] == last]
    settings = _settings(chosen, [name for name in varying(rows) if name != "epochs"])
    figure, axes = _panels(2 * len(settings), "confidence", "share that is right")
    kinds = ("reliability", "as trained"), ("tempered_reliability", "after one temperature")
    for axis, ((title, members), (key, when)) in zip(axes, itertools.product(settings, kinds), strict=True):
        axis.set_title(f"{title}, {when}" if title else when, fontsize=9)
        axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        for method, style, found in _methods(rows, members):
            bins = list(zip(*(row["outcome"][key] for row in found), strict=True))
            points = [point for point in map(_pooled, bins) if point]
            axis.plot(*zip(*points, strict=True), label=method, marker="o", markersize=2, **style)
    _finish(figure, axes)
    return figure


def _pooled(seeds: Sequence[Any]) -> tuple[float, float] | None:
    """One bin over all seeds: mean confidence and accuracy; ``None`` if it holds fewer than ten predictions."""
    count = sum(bin[0] for bin in seeds)
    return None if count < 10 else tuple(sum(bin[0] * bin[k] for bin in seeds) / count for k in (1, 2))


def _settings(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """Groups of rows that have these settings in common, with titles."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row["run"][name] for name in names), []).append(row)
    return [(", ".join(map(_setting_text, names, group)), groups[group]) for group in sorted(groups)]


def _setting_text(name: str, value: Any) -> str:
    if name == "label_noise":
        return f"{value:.0%} wrong labels" if value else "right labels"
    return f"{value} epochs" if name == "epochs" else f"{NAMES.get(name, name)} {value}"


def _methods(rows: Sequence[Row], members: Sequence[Row]) -> list[tuple[str, dict[str, Any], list[Row]]]:
    """Each method with the style of its line, the same in all panels, and its rows."""
    methods = list(dict.fromkeys(row["run"]["method"] for row in rows))
    found = []
    for place, method in enumerate(methods):
        style = {"color": COLOURS[place % len(COLOURS)], "linestyle": STYLES[place // len(COLOURS) % len(STYLES)]}
        own = [row for row in members if row["run"]["method"] == method]
        if own:
            found.append((method, {**style, "linewidth": 1.4}, own))
    return found


def _panels(count: int, horizontal: str, vertical: str) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(count, 4)
    lines = -(-count // columns)
    figure = Figure(figsize=(3.1 * columns + 1.6, 2.9 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        axis.set_xlabel(horizontal)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(vertical)
    return figure, axes[:count]


def _finish(figure: Any, axes: Sequence[Any]) -> None:
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside right upper", frameon=False, fontsize=8)
