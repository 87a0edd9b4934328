"""Makes the tables and pictures of the evidence from its rows: ``python -m evidence.report``.

In README.md here and in the one above, ``<!-- evidence:NAME -->`` ... ``<!-- /evidence -->`` encloses what is made: the
name of a file in ``results/``, then what of it: a table, its command, or how it was made.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mixcollate.commands.plots import draw
from mixcollate.commands.summary import COLUMNS, Row, cells, command, lines, markdown, varying

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DOCUMENTS = (HERE / "README.md", HERE.parent / "README.md")
MARKED = re.compile(r"(<!-- evidence:(?P<name>\S+) (?P<what>\S+) -->\n).*?(<!-- /evidence -->)", re.DOTALL)


def rows_of(name: str) -> list[Row]:
    """The committed rows of one comparison."""
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def filled(text: str) -> str:
    """A document with everything between markers made anew."""
    return MARKED.sub(lambda match: match[1] + PARTS[match["what"]](rows_of(match["name"])) + match[4], text)


def accuracy(rows: Sequence[Row]) -> str:
    """Methods down, settings across: accuracy, and in brackets the difference from plain, bold where it is shown."""
    names = varying(rows)
    by_setting = {(line.method, line.setting): line for line in lines(rows)}
    settings = sorted({setting for _, setting in by_setting})
    heads = [", ".join(filter(None, map(_setting, names, setting))) for setting in settings]
    table = [["", *heads]]
    for method in dict.fromkeys(row["run"]["method"] for row in rows):
        parts = [method]
        for setting in settings:
            line = by_setting.get((method, setting))
            gain = "" if line is None or line.gain is None else f" ({round(line.gain.mean, 1) + 0.0:+.1f})"
            shown = line is not None and line.gain is not None and line.gain.shown
            text = "" if line is None else f"{line.of('accuracy').text()}{gain}"
            parts.append(f"**{text}**" if shown else text)
        table.append(parts)
    return markdown(table)


def _setting(name: str, value: object) -> str:
    if name == "label_noise":
        return f"{value:.0%} wrong" if value else "right labels"
    if name == "start":
        return "" if value == "random" else "good start"
    return f"{value} epochs" if name == "epochs" else f"{name.replace('_', ' ')} {value}"


def replicated(rows: Sequence[Row]) -> list[Row]:
    """The rows of what was run with more than one seed."""
    return [row for row in rows if sum(_arm(one) == _arm(row) for one in rows) > 1]


def everything(rows: Sequence[Row]) -> str:
    """A line for each method and setting, with intervals and calibration."""
    return markdown(cells(rows, tuple(COLUMNS)))


def commands(rows: Sequence[Row]) -> str:
    """The command lines that make these rows, as few as there can be: each makes all combinations of its values."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_arm(row).values()), []).append(row)
    found = list(groups.values())
    for name in ("method", "epochs", "label_noise"):  # join those that differ in this one alone
        joined: dict[tuple[object, ...], list[Row]] = {}
        for group in found:
            names = [key for key in group[0]["run"] if key != name]
            alike = tuple(tuple(dict.fromkeys(row["run"][key] for row in group)) for key in names)
            joined.setdefault(alike, []).extend(group)
        found = list(joined.values())
    return "```sh\n" + "\n".join(map(command, found)) + "\n```\n"


def _arm(row: Row) -> dict[str, object]:
    return {name: value for name, value in row["run"].items() if name != "seed"}


def made(rows: Sequence[Row]) -> str:
    """Where and when rows were made, and how long that took."""
    facts = {name: sorted({str(row["made"][name]) for row in rows}) for name in ("commit", "torch", "device", "date")}
    hours = sum(row["made"]["seconds"] for row in rows) / 3600
    listed = ", ".join(f"{name} {' and '.join(values)}" for name, values in facts.items())
    return f"{len(rows)} runs in {hours:.1f} hours of a busy machine, one thread each; {listed}.\n"


PARTS: dict[str, Callable[[Sequence[Row]], str]] = {
    "accuracy": accuracy,
    "replicated": lambda rows: accuracy(replicated(rows)),
    "everything": lambda rows: everything(replicated(rows)),
    "commands": commands,
    "made": made,
}


def main() -> None:
    """Make the documents and the pictures anew."""
    for path in DOCUMENTS:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    for results in sorted(RESULTS.glob("*.jsonl")):
        for picture in draw(replicated(rows_of(results.stem)), HERE, f"{results.stem}-", "svg"):
            print(picture.relative_to(HERE.parent))


if __name__ == "__main__":
    main()
