"""No number in the documents is typed by hand: tables and plots are those of the committed results."""

import json

import pytest

from benchmarks import report
from benchmarks.goals import GOALS

COMMITTED = sorted(report.RESULTS.glob("*.json"))
DOCUMENTS = [path for path in report.DOCUMENTS if path.exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(report.ROOT).as_posix())
def test_tables_are_those_of_the_results(path):
    """Where nothing is committed yet, a table says that it is not measured."""
    text = path.read_text(encoding="utf-8")
    assert text == report.filled(text), "run: python -m benchmarks.report documents"


@pytest.mark.skipif(not COMMITTED, reason="no results are committed yet")
def test_the_readme_shows_results():
    text = (report.ROOT / "README.md").read_text(encoding="utf-8")
    assert report.MARKED.search(text), "README.md needs <!-- results:goals-cpu --> … <!-- /results -->"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_plots_are_those_of_the_results(kind):
    found = report.latest(kind)
    if found is None:
        pytest.skip(f"no results of a {kind.upper()} are committed yet")
    plots = sorted(report.IMAGES.glob(f"*-{kind}.svg"))
    assert plots, "run: python -m benchmarks.report documents"
    for plot in plots:
        assert found[0].name in plot.read_text(encoding="utf-8"), f"{plot.name}: python -m benchmarks.report documents"


@pytest.mark.skipif(not COMMITTED, reason="no results are committed yet")
@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_results_say_where_they_come_from(path):
    results = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem.endswith(results["commit"]) and results["machine"] and results["date"]
    assert {"python", "torch", "numpy"} <= set(results["versions"])
    assert not {code for row in results["rows"] for code in row["goals"]} - set(GOALS)
    assert report.goal_rows(results)
