"""No number in the documents is typed by hand: tables and plots are those of the committed results."""

import json

import pytest

from benchmarks import plots, report, results, tables
from benchmarks.goals import GOALS

COMMITTED = sorted(results.RESULTS.glob("*.json"))
DOCUMENTS = [path for path in report.DOCUMENTS if path.exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(results.ROOT).as_posix())
def test_tables_are_those_of_the_results(path):
    """Where nothing is committed yet, a table says that it is not measured."""
    text = path.read_text(encoding="utf-8")
    assert text == tables.filled(text), "run: python -m benchmarks.report documents"


@pytest.mark.skipif(not COMMITTED, reason="no results are committed yet")
def test_the_readme_shows_results():
    text = (results.ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.MARKED.search(text), "README.md needs <!-- results:overview-cpu --> … <!-- /results -->"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_plots_are_those_of_the_results(kind):
    found = results.latest(kind)
    if found is None:
        pytest.skip(f"no results of a {kind.upper()} are committed yet")
    drawn = sorted(plots.IMAGES.glob(f"*-{kind}.svg"))
    assert drawn, "run: python -m benchmarks.report documents"
    for plot in drawn:
        assert found[0].name in plot.read_text(encoding="utf-8"), f"{plot.name}: python -m benchmarks.report documents"


@pytest.mark.skipif(not COMMITTED, reason="no results are committed yet")
@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_results_say_where_they_come_from(path):
    read = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem.endswith(read["commit"]) and read["machine"] and read["date"]
    assert {"python", "torch", "numpy"} <= set(read["versions"])
    assert not {code for row in read["rows"] for code in row["goals"]} - set(GOALS)
    assert results.goal_rows(read)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_two_results_of_a_kind_are_kept(kind):
    """The documents read the newest, and ``compare`` the one before it; git remembers the others."""
    read = [json.loads(path.read_text(encoding="utf-8")) for path in COMMITTED]
    machines = [one["machine"] for one in read if one["kind"] == kind]
    assert all(machines.count(machine) <= 2 for machine in machines), "remove the oldest from benchmarks/results"
