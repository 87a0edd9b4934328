"""No number of the evidence is typed by hand: tables are those of the committed rows, and commands make those rows."""

import json
import re
import shlex

import pytest

from evidence import report
from mixcollate.commands.cli import parser
from mixcollate.commands.compare import runs_of
from mixcollate.commands.training import Run

RESULTS = sorted(report.RESULTS.glob("*.jsonl"))


@pytest.mark.parametrize("path", report.DOCUMENTS, ids=lambda path: path.parent.name)
def test_tables_are_those_of_the_rows(path):
    text = path.read_text(encoding="utf-8")
    assert report.MARKED.search(text)
    assert text == report.filled(text), "run: python -m evidence.report"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_listed_commands_make_the_rows(path):
    rows = report.rows_of(path.stem)
    commands = [shlex.split(line) for line in report.commands(rows).splitlines()[1:-1]]
    runs = [run for _, *arguments in commands for run in runs_of(parser().parse_args(arguments))]
    assert sorted(map(str, runs)) == sorted(str(Run(**row["run"])) for row in rows)
    assert all(re.fullmatch("[0-9a-f]{9}", row["made"]["commit"]) for row in rows)


@pytest.mark.parametrize("name", ["fashion-schedules.svg", "fashion-calibration.svg"])
def test_pictures_are_shown(name):
    assert (report.HERE / name).exists() and name in (report.HERE / "README.md").read_text(encoding="utf-8")


def test_a_row_that_was_changed_is_noticed(tmp_path, monkeypatch):
    rows = report.rows_of("fashion")
    rows[0]["outcome"]["accuracy"] += 1
    (tmp_path / "fashion.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "digits.jsonl").write_bytes((report.RESULTS / "digits.jsonl").read_bytes())
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    text = report.DOCUMENTS[0].read_text(encoding="utf-8")
    assert report.filled(text) != text
