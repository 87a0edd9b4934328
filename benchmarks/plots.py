"""Results as plots: SVGs for the documents, PNGs beside a user's own results."""

from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, Results, cases, duel, growth_curves, is_ours, questions
from benchmarks.tables import case_name, rate, three_figures

IMAGES = ROOT / "images"


def plot(source: Path, results: Results, folder: Path = IMAGES, kind: str = "svg") -> list[Path]:
    """Draw the results; each picture names the file it was made from. The PNGs include one more than the SVGs."""
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
    undated: dict[str, Any] = {"Date": None}  # so that the same results give the same file
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


def pictures(source: Path, results: Results) -> str:
    """Draw PNGs beside ``source``; return their paths as text, or why there are none."""
    try:
        drawn = plot(source, results, source.parent, "png")
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        return 'no picture: matplotlib is missing: pip install "mixcollate[bench]"'
    return "\n".join(f"picture: {path}" for path in drawn) or "no picture: none of this has a rival or a size to draw"


def _draw_fastest(pyplot: Any, results: Results) -> Any:
    """How many times as long as ours the fastest other takes, for each case that has one."""
    found = [(file, where, duel(rows)) for file in questions() for where, rows in cases(results, file).items()]
    duels = [(f"{file}: {case_name(where, results)}", *two) for file, where, two in found if two]
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
        # the label of a loss is on the other side of the line from its bar
        axis.annotate(
            f"{three_figures(ratio)}×  {other['name']}", (max(ratio, 1), bar.get_y() + bar.get_height() / 2),
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
    panels |= {method: f"elements of a small batch, {method}" for method in ("MixUp", "CutMix")}
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
        axis.bar_label(drawn, [rate(row["images_per_second"]) for row in rows], padding=3, fontsize=7)
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
