"""Every benchmark runs, tiny; each answers a question; and what a GPU would run, runs."""

import ast
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")

from benchmarks import bench_cost, bench_peers, checks, common, gpu, plots, report, tables
from benchmarks.goals import GOALS
from benchmarks.results import cases, condense, goal_rows, latest, questions, write
from mixcollate.methods import ALL

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "benchmarks").glob("bench_*.py"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """What pytest-benchmark writes when all benchmarks run, tiny."""
    path = tmp_path_factory.mktemp("benchmarks") / "raw.json"
    command = [sys.executable, "-m", "pytest", "benchmarks", "-o", "python_files=bench_*.py", "-q", "-rf"]
    command += ["-p", "no:cacheprovider", "--benchmark-enable", f"--benchmark-json={path}"]
    environment = {**os.environ, "BENCH_SCALE": "tiny", "BENCH_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    return json.loads(path.read_text())


of_a_run = pytest.mark.slow  # uses the rows of every benchmark, which take half a minute in a process


@pytest.fixture(scope="module")
def results(raw):
    return condense([raw], "abc1234")


@pytest.fixture(scope="module")
def few(results):
    """Results with one way to grow: an axis of a picture takes long to draw, and all are drawn alike."""
    return {**results, "rows": [row for row in results["rows"] if "growth" != row["file"] or "batch" in row["case"]]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_first_line_is_a_question(path):
    question = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    assert question.endswith("?") and len(question) > 20, question


@of_a_run
def test_every_file_is_measured(results):
    assert {row["file"] for row in results["rows"]} == set(questions())


def test_every_method_is_measured_and_checked_on_a_gpu():
    assert {type(method) for method in bench_cost.METHODS.values()} == set(ALL.values())
    assert set(ALL) <= set(checks.METHODS)
    assert set(ALL) <= set(vars(bench_peers))


@of_a_run
def test_rows_state_their_bytes_and_rates(results):
    for row in results["rows"]:
        assert row["median"] > 0 and row["rounds"] >= 1, row
        if row["bytes"]:
            assert row["gigabytes_per_second"] == pytest.approx(row["bytes"] / row["median"] / 1e9, rel=1e-3)
        if row["images"]:
            assert row["images_per_second"] == pytest.approx(row["images"] / row["median"], rel=1e-3)


@of_a_run
def test_goals_name_rows_that_are_there(results):
    """A goal compares with rivals of the same case; and every goal of the CPU is measured."""
    skipped = {one["name"] for one in results["skipped"]}
    for row in results["rows"]:
        rivals = cases(results, row["file"], row["case"])[row["case"], row["device"], row["clock"]]
        names = {rival["name"] for rival in rivals} | skipped
        for code, against in row["goals"].items():
            assert code in GOALS and set(against) <= names, (code, against)
    reached = {code for code, _, _ in goal_rows(results)}
    timm = importlib.util.find_spec("timm") is not None
    assert reached >= {code for code in GOALS if code.startswith("C") and (timm or "timm" not in GOALS[code].what)}


def test_goals_compare_with_the_fastest():
    rows = [
        _row("mixcollate", 2.0, goals={"C3 tensors": ["a", "b"], "C1 tensors": ["a", "b"], "C4": []}),
        _row("a", 6.0),
        _row("b", 5.0),
        _row("copy", 1.0),
    ]
    assert goal_rows(_results(rows)) == [("C1 tensors", 2 / 5, True), ("C3 tensors", 5 / 2, True), ("C4", 2e6, False)]


def test_missing_peer_is_a_skipped_row_that_says_so(monkeypatch):
    from benchmarks import peers

    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.data.mixup", None)
    images, labels = iter([]), torch.zeros(4, dtype=torch.int64)
    rivals = peers.mixup(images, labels, 10)
    assert rivals["timm batch (in place)"] == "timm is not installed (ModuleNotFoundError)"
    assert callable(rivals["torchvision"])


def test_rivals_take_turns():
    calls = []
    durations = common.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, torch.device("cpu"))
    timed = len(durations["a"])
    assert timed == len(durations["b"]) >= 1
    ends = [set(calls[end - 2 : end]) for end in (len(calls), len(calls) - 2) if common.TINY]
    assert all(end == {"a", "b"} for end in ends)


def test_a_rival_that_breaks_leaves_the_others():
    def broken():
        raise RuntimeError("no")

    durations = common.interleaved({"broken": broken, "fine": int}, torch.device("cpu"))
    assert isinstance(durations["broken"], RuntimeError) and len(durations["fine"]) >= 1


@pytest.mark.parametrize("check", checks.CHECKS.values(), ids=checks.CHECKS)
def test_checks_of_the_gpu(check):
    check(torch.device("cpu"))


def test_checks_find_what_is_wrong():
    images = torch.rand(4, 3, 8, 8)
    with pytest.raises(AssertionError, match="not written"):
        checks.same(images / 0, images, "poisoned")
    with pytest.raises(AssertionError, match="relative error"):
        checks.same(images * 1.01, images, "off")


def test_a_step_without_a_cuda_graph_is_found(monkeypatch):
    """Inductor leaves it out with no more than a line in its log, and counts."""
    make = torch.compile

    def without_graph(*arguments, **options):
        torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] += 1
        return make(*arguments, **options)

    monkeypatch.setattr(torch, "compile", without_graph)
    with pytest.raises(AssertionError, match="no CUDA graph was recorded"):
        checks.compiled(torch.device("cpu"))


@pytest.mark.slow  # starts every step of the GPU run, each in a process
def test_dry_run_of_the_gpu_script(monkeypatch, tmp_path, capsys):
    """A step that fails is reported, and the rest still runs."""
    monkeypatch.setattr(gpu, "CHECKS", ("memory", "no such check"))
    monkeypatch.setattr(gpu, "BENCHMARKS", {"host": 60, "naive": 60})
    assert gpu.main(["--dry-run", "--out", str(tmp_path), "--commit", "abc1234"]) == 1
    printed = capsys.readouterr().out
    states = {
        line[8:32].strip(): line.split()[0] for line in printed.splitlines() if line.startswith(("ok ", "FAILED "))
    }
    assert states == {
        "memory": "ok",
        "no such check": "FAILED",
        "bench host": "ok",
        "bench naive": "ok",
        "results": "ok",
    }
    assert "invalid choice: 'no such check'" in printed and "C4" in printed
    assert (tmp_path / "cpu-abc1234.json").exists() and (tmp_path / "gpu.log").exists()


@of_a_run
def test_what_is_measured_lies_there_before_the_next_step_begins(raw, monkeypatch, tmp_path):
    """Whoever ends a run, or gives the machine back, keeps it."""

    def run_step(name, command, environment, limit, log):
        if name == "bench step":
            raise KeyboardInterrupt
        (log.parent / "host.json").write_text(json.dumps(raw))
        return gpu.Outcome(name, "ok", 1.0, "measured")

    monkeypatch.setattr(gpu, "run_step", run_step)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--dry-run", "--out", str(tmp_path), "--commit", "abc1234", "--only", "host", "--only", "step"])
    assert json.loads((tmp_path / "cpu-abc1234.json").read_text())["rows"]
    assert (tmp_path / "gpu.log").read_text().startswith("===== bench host: ok, 1 s\nmeasured")
    assert "C4" in (tmp_path / "gpu.txt").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the step by Linux's list of processes")
@pytest.mark.slow  # runs benchmarks in a process
def test_a_step_that_is_killed_leaves_its_rows(tmp_path):
    """With SIGKILL, in the middle of it; and the run that it is a step of goes on."""
    arguments = ["--dry-run", "--out", str(tmp_path), "--commit", "abc1234", "--only", "peers"]
    run = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu", *arguments], stdout=subprocess.DEVNULL)
    rows = tmp_path / "raw" / "peers.json"
    until = time.time() + 120
    while not rows.exists() and time.time() < until:
        time.sleep(0.1)
    (step,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(step), signal.SIGKILL)
    assert run.wait(120) == 1
    kept = json.loads((tmp_path / "cpu-abc1234.json").read_text())["rows"]
    assert kept and {row["file"] for row in kept} == {"peers"}
    assert len(kept) < 100 and "G2" not in kept[0]["goals"]
    log = (tmp_path / "gpu.log").read_text()
    assert "===== bench peers: FAILED" in log and "test_pipeline" in log


def test_limits_grow_with_a_slow_machine(monkeypatch, tmp_path):
    limits = {}

    def run_step(name, command, environment, limit, log):
        limits.setdefault(name, []).append(limit)
        return gpu.Outcome(name, "ok", 1.0, "")

    monkeypatch.setattr(gpu, "run_step", run_step)
    for slow in (1.0, 3.0):
        monkeypatch.setattr(gpu, "slowness", lambda slow=slow: slow)
        gpu.main(["--dry-run", "--out", str(tmp_path), "--commit", "abc1234", "--budget", "10000"])
    assert set(limits) == {*gpu.CHECKS, *(f"bench {name}" for name in gpu.BENCHMARKS)}
    assert all(slow == pytest.approx(3 * quick, abs=1) for quick, slow in limits.values())


def test_a_slow_machine_with_a_gpu_leaves_time_for_benchmarks(monkeypatch, tmp_path):
    """Though the tests and the sanitizers, whose limits have grown, take all that they are given."""
    now, begun = [0.0], {}

    def run_step(name, command, environment, limit, log):
        begun[name] = now[0]
        now[0] += limit if name in ("tests", "memcheck") else 0
        return gpu.Outcome(name, "ok", limit, "")

    monkeypatch.setattr(gpu, "run_step", run_step)
    monkeypatch.setattr(gpu, "slowness", lambda: 3.0)
    monkeypatch.setattr(gpu, "has_gpu", lambda: True)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(gpu.time, "time", lambda: now[0])
    gpu.main(["--out", str(tmp_path), "--commit", "abc1234", "--budget", "400"])
    assert {*gpu.SANITIZERS, "tests"} < begun.keys() and begun["bench host"] <= 300


def test_most_wanted_comes_first():
    """The host's time, then the fused pipeline: what is cut off at the end is the least wanted."""
    assert list(gpu.BENCHMARKS)[:2] == ["host", "peers"]
    for name, first in (("host", "test_call"), ("peers", "test_pipeline")):
        code = ast.parse((ROOT / f"benchmarks/bench_{name}.py").read_text()).body
        tests = [one.name for one in code if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")]
        assert tests[0] == first


def test_two_gpus_stand_side_by_side(tmp_path):
    """What one of them says holds for no other; of each the newest counts."""
    for machine, commit, date, seconds in (
        ("NVIDIA H100", "a", "2026-11-23T05:22", 2e-3), ("NVIDIA H200", "b", "2026-11-24T05:22", 1e-3),
        ("NVIDIA H100", "c", "2026-11-25T05:22", 4e-3),
    ):  # fmt: skip
        rows = [_row("copy", 1e-3), _row("mixcollate", seconds, goals={"G2 NCHW": ["copy"]})]
        write({**_results(rows, commit, date, "gpu"), "machine": machine}, tmp_path)
    goals = tables.filled("<!-- results:goals-gpu -->\n<!-- /results -->\n", tmp_path)
    assert "| | what | goal | NVIDIA H100 | | NVIDIA H200 | |\n|---|---|---|---|---|---|---|\n" in goals
    assert "| ≥ 0.85× | 0.250× | not reached | 1.00× |  |" in goals
    each = tables.filled("<!-- results:peers-gpu -->\n<!-- /results -->\n", tmp_path)
    assert each.index("NVIDIA H100:\n\n| | median") < each.index("NVIDIA H200:\n\n| | median")
    assert "4.00 ± 100 ms" in each and "2.00 ± 100 ms" not in each
    machines = tables.filled("<!-- results:machine-gpu -->\n<!-- /results -->\n", tmp_path)
    assert "NVIDIA H100 (host" in machines and "NVIDIA H200 (host" in machines


def test_unknown_steps_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--dry-run", "--only", "everything"])
    assert "--only must be of small, graph" in capsys.readouterr().err


def test_no_gpu_is_said(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "has_gpu", lambda: False)
    assert gpu.main([]) == 2
    assert "no GPU that torch can use" in capsys.readouterr().out


def test_a_step_out_of_time_is_a_failure_with_its_output(tmp_path):
    code = "import time; print('begun', flush=True); time.sleep(60)"
    outcome = gpu.run_step("slow", [sys.executable, "-c", code], dict(os.environ), 2, tmp_path / "log")
    assert outcome.state == "FAILED" and outcome.output.splitlines()[0] == "begun"
    assert gpu.last_line(outcome) == "out of time: 2 s"
    assert (tmp_path / "log").read_text() == "begun\n"


def test_nothing_outlives_a_step_out_of_time(tmp_path):
    """As the workers of a test run would, beside the benchmarks."""
    late = tmp_path / "late"
    child = f"import time; time.sleep(3); open({str(late)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert gpu.run_step("slow", [sys.executable, "-c", code], dict(os.environ), 1, tmp_path / "log").state == "FAILED"
    time.sleep(3)
    assert not late.exists()


def _row(name, median, *, goals=None, case="a case", file="peers"):
    return {
        "file": file, "case": case, "name": name, "device": "cpu", "clock": "call", "ours": "mixcollate", "images": 8,
        "bytes": 80, "median": median, "iqr": 0.1, "rounds": 7, "images_per_second": 8 / median,
        "gigabytes_per_second": 8e-8 / median, "goals": goals or {}, "extra": {},
    }  # fmt: skip


def _results(rows, commit="abc1234", date="2026-11-23T05:22", kind="cpu"):
    return {
        "kind": kind, "machine": "A CPU, 2 cores", "host": "A CPU, 2 cores", "threads": 1, "commit": commit,
        "date": date, "versions": {"python": "3.11"}, "rows": rows,
        "skipped": [{"file": "peers", "case": "a case", "name": "kornia", "reason": "kornia is not installed"}],
    }  # fmt: skip


@of_a_run
def test_results_make_the_round_trip(results, tmp_path):
    path = write(results, tmp_path)
    assert path.name == "cpu-abc1234.json"
    assert latest("cpu", tmp_path) == (path, results) and latest("gpu", tmp_path) is None
    assert len(path.read_text().splitlines()) > len(results["rows"])  # one row a line


def test_the_newest_results_count(tmp_path):
    for commit, date in (("b", "2026-11-23T05:22"), ("a", "2026-11-24T01:00"), ("c", "2026-11-22T23:00")):
        write(_results([], commit, date), tmp_path)
    assert latest("cpu", tmp_path)[1]["commit"] == "a"


def test_tables_stand_between_the_markers(tmp_path):
    write(_results([_row("copy", 0.5e-3), _row("mixcollate", 2e-3, goals={"C4": []})]), tmp_path)
    text = "before\n<!-- results:peers-cpu -->\nold\n<!-- /results -->\nbetween\n<!-- results:goals-cpu -->\n"
    text += "<!-- /results -->\n<!-- results:goals-gpu -->\n<!-- /results -->\n"
    made = tables.filled(text, tmp_path)
    assert made.startswith("before\n<!-- results:peers-cpu -->\n| | median ± IQR |") and "old" not in made
    assert "| **a case** | | | | |\n| copy | 500 ± 100000 µs | 16,000 | 0.000160 | 0.250× |" in made
    assert "Not measured: kornia (kornia is not installed)." in made
    assert "between" in made and "| C4 |" in made and "| ≤ 100 µs | 2000 µs | not reached |" in made
    assert made.endswith(f"<!-- results:goals-gpu -->\n{tables.NOT_YET}<!-- /results -->\n")
    assert tables.filled(made, tmp_path) == made


def test_tables_of_some_cases(tmp_path):
    rows = [_row("mixcollate", 1.0, case=f"{method}, float32") for method in ("MixUp", "CutMix")]
    write(_results(rows), tmp_path)
    made = tables.filled("<!-- results:peers-cpu:CutMix -->\n<!-- /results -->", tmp_path)
    assert "**CutMix, float32**" in made and "MixUp," not in made


def test_the_overview_has_the_fastest_of_each_library(tmp_path):
    """Ours by their exact names, so that neither Numba nor one draw for a whole batch counts; a copy is no rival."""
    times = {"copy": 1e-3, "mixcollate": 5e-3, "mixcollate in place, Numba": 2e-3, "torchvision": 8e-3}
    times |= {"timm batch (in place)": 4e-3, "timm pair (in place)": 3e-3}
    rows = [_row(name, seconds) for name, seconds in times.items()]
    alone = [_row(name, 1e-3, case="RICAP") for name in ("mixcollate", "timm")]  # only one other library has it
    write(_results(rows + alone), tmp_path)
    made = tables.filled("<!-- results:overview-cpu -->\n<!-- /results -->", tmp_path)
    assert "| a case | 1.00 ms | 5.00 ms |  | 8.00 ms | **3.00 ms** |  |  |" in made and "RICAP" not in made


def test_missed_goals_alone(tmp_path):
    write(_results([_row("copy", 1e-3), _row("mixcollate", 2e-3, goals={"C4": [], "C1 NumPy": ["copy"]})]), tmp_path)
    reached = _row("mixcollate", 1e-3, goals={"C1 tensors": ["copy"]}, case="another")
    write(_results([_row("copy", 1e-3, case="another"), reached], "def5678", kind="gpu"), tmp_path)
    assert tables.filled("<!-- results:missed-cpu -->\n<!-- /results -->", tmp_path).count("not reached |\n") == 2
    assert "C1" not in tables.filled("<!-- results:missed-gpu -->\n<!-- /results -->", tmp_path)
    assert "C1 tensors" in tables.filled("<!-- results:goals-gpu -->\n<!-- /results -->", tmp_path)
    missed = [_row("copy", 1e-3), _row("mixcollate", 4e-3, goals={"C1 tensors": ["copy"]})]
    write({**_results(missed, "0a1b2c3", kind="gpu"), "machine": "Another"}, tmp_path)  # the first reached it, still
    made = tables.filled("<!-- results:missed-gpu -->\n<!-- /results -->", tmp_path)
    assert "1.00×" in made and "4.00× | not reached" in made


def test_unknown_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no table is called 'speed-cpu'"):
        tables.filled("<!-- results:speed-cpu -->\n<!-- /results -->", tmp_path)


@of_a_run
def test_plots_say_what_they_are_made_of(few, tmp_path):
    path = write(few, tmp_path)
    drawn = plots.plot(path, few, tmp_path / "images")
    assert {plot.name for plot in drawn} == {"growth-cpu.svg", "peers-cpu.svg", "loader-cpu.svg"}
    assert all("cpu-abc1234.json" in plot.read_text() for plot in drawn)


def test_growth_is_a_constant_and_a_slope():
    sizes = [1, 10, 100, 1000]
    assert tables.line_through(sizes, [5 + 2 * size for size in sizes]) == pytest.approx((5, 2))
    assert tables.line_through(sizes, [2 * size for size in sizes]) == pytest.approx((0, 2), abs=1e-9)
    rows = [_row("mixcollate", 1e-5 * (1 + n), file="growth", case=f"batch {n}") for n in sizes]
    for row, n in zip(rows, sizes, strict=True):
        row["extra"] = {"size": n}
    (line,) = tables.fits(_results(rows))
    assert line == "- batch, mixcollate: 10.0 µs + 10000 ns for each; points lie within 0% of it"


def test_comparison_is_of_ratios(tmp_path, capsys):
    old = _results([_row("mixcollate", 1.0), _row("torchvision", 4.0), _row("timm", 2.0)])
    slower_machine = _results([_row("mixcollate", 3.0), _row("torchvision", 12.0), _row("timm", 6.0)], "b")
    regressed = _results([_row("mixcollate", 1.5), _row("torchvision", 4.0), _row("timm", 2.0)], "c")
    paths = [str(write(one, tmp_path)) for one in (old, slower_machine, regressed)]
    assert report.main(["compare", paths[0], paths[1]]) == 0
    assert "none" in capsys.readouterr().out
    assert report.main(["compare", paths[0], paths[2]]) == 1
    assert "1.50×  slower  peers: a case: mixcollate" in capsys.readouterr().out
    assert report.main(["compare", paths[2], paths[0]]) == 0
    assert "0.67×  faster" in capsys.readouterr().out


def test_comparison_of_nothing_is_refused(tmp_path):
    """A benchmark that the other run left out, or cases in which all rows are ours, do not count as equal."""
    one = _results([_row("mixcollate", 1.0), _row("timm", 2.0)])
    plans = _results([_row("mixcollate", 1.0, file="host", case="a plan for 2 images"), *[
        _row("CutMix", 1.0, file="host", case="a plan for 2 images")
    ]], "b")  # fmt: skip
    paths = [str(write(results, tmp_path)) for results in (one, plans)]
    for old, new in ((paths[0], paths[1]), (paths[1], paths[1])):
        with pytest.raises(SystemExit, match="no case in common"):
            report.main(["compare", old, new])


def test_ours_is_shown_against_the_fastest_other():
    """Rows that do less are no rivals; losses are marked; without rivals, all rows are there."""
    shown = tables.show(_results([
        *(_row(*one) for one in (("copy", 1e-3), ("mixcollate", 2e-3), ("timm", 9.0), ("kornia", 5e-3))),
        *(_row(name, seconds, case="lost") for name, seconds in (("mixcollate", 2.0), ("timm", 1.0))),
        *(_row(name, 2.0, case="alone") for name in ("copy", "mixcollate", "mixcollate in place")),
        *(_row(name, 2.0, file="host", case="a plan") for name in ("mixcollate", "CutMix")),
        *({**_row(name, seconds, file="step", case="a step"), "ours": "no mixing"} for name, seconds in (
            ("no mixing", 1.0), ("mixcollate", 2.0), ("timm", 3.0)
        )),
    ]))  # fmt: skip
    lines = [line.strip() for line in shown.splitlines()]
    assert "2.50×  a case: 2.00 ± 100 ms (mixcollate) against 5.00 ± 100 ms (kornia)" in lines
    assert "!   0.500×  lost: 2.00 ± 0.100 s (mixcollate) against 1.00 ± 0.100 s (timm)" in lines
    assert "1.50×  a step: 2.00 ± 0.100 s (mixcollate) against 3.00 ± 0.100 s (timm)" in lines
    first = lines.index("alone")
    assert [line.split("s  ")[1] for line in lines[first + 1 : first + 4]] == [
        "copy",
        "mixcollate",
        "mixcollate in place",
    ]
    assert lines[lines.index("a plan") + 2].endswith("s  CutMix")


@of_a_run
def test_pictures_lie_beside_the_results(few, tmp_path):
    printed = plots.pictures(write(few, tmp_path), few)
    drawn = {"fastest-cpu.png", "growth-cpu.png", "peers-cpu.png", "loader-cpu.png"}
    assert {Path(line.removeprefix("picture: ")) for line in printed.splitlines()} == {
        tmp_path / name for name in drawn
    }
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)


def test_no_picture_says_why(tmp_path, monkeypatch):
    alone = _results([_row("mixcollate", 1.0), _row("copy", 1.0)])
    assert plots.pictures(tmp_path / "a.json", alone).startswith("no picture: none of this has a rival")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plots.pictures(tmp_path / "a.json", alone).endswith('missing: pip install "mixcollate[bench]"')


@of_a_run
def test_command_line_condenses_and_shows(raw, tmp_path, capsys):
    source = tmp_path / "raw.json"
    source.write_text(json.dumps(raw))
    assert report.main(["condense", str(source), "--commit", "abc1234", "--out", str(tmp_path / "results")]) == 0
    assert "cpu-abc1234.json" in capsys.readouterr().out
    assert report.main(["show", str(tmp_path / "results" / "cpu-abc1234.json")]) == 0
    assert "C6 CutMix" in capsys.readouterr().out.splitlines()[-1]  # the goals come last
