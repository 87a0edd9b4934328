"""Everything that needs a GPU, in one run: is it correct there, and how fast is it? ``python -m benchmarks.gpu``

Needs no network and nothing but the working tree, torch and what pytest needs. First the tests, the checks and the
sanitizer, side by side; then, alone, the benchmarks, most wanted first, for as long as the budget lasts. A step that
fails is reported and the rest still runs; the status is 1 if any failed, 2 without a GPU. ``--dry-run`` does the same
on the CPU, on tiny batches.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ("small", "graph", "compiled", "sync", "race", "memory", "loader")
BENCHMARKS = {  # seconds for each, most wanted first
    "peers": 110,
    "host": 30,
    "targets": 35,
    "step": 50,
    "loader": 110,
    "cost": 40,
    "growth": 40,
    "naive": 20,
}
WITHOUT_GPU = ("benchmarks", "results", "cli", "fused_aot", "launch")  # tests that it would tell nothing new
NO_SANITIZER = ("Device not supported", "not supported on this")  # what it says on some virtual machines


class Outcome(NamedTuple):
    """What became of a step."""

    name: str
    state: str  # "ok", "FAILED" or "skipped"
    seconds: float
    output: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, tiny")
    parser.add_argument("--budget", type=float, default=470, help="seconds for everything")
    parser.add_argument("--out", type=Path, help="folder of the results (default: benchmarks/results) and the log")
    parser.add_argument("--no-tests", action="store_true", help="leave the test suite out")
    parser.add_argument("--commit", help="what is measured; default: the checked-out commit, or a hash of the sources")
    options = parser.parse_args(arguments)
    if not options.dry_run and not has_gpu():
        print("no GPU that torch can use; --dry-run runs everything on the CPU, tiny")
        return 2
    return run(options)


def has_gpu() -> bool:
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def run(options: argparse.Namespace) -> int:
    """Run all steps, write the results, print the table."""
    start = time.time()
    device = "cpu" if options.dry_run else "cuda"
    environment = {
        **{name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "BENCH_DEVICE": device,
        "BENCH_SECONDS": "0.25",
    }
    if options.dry_run:
        del environment["BENCH_SECONDS"]
        environment["BENCH_SCALE"] = "tiny"
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        outcomes = correctness(device, environment, options)
        outcomes += measurements(raw, environment, start + options.budget)
        table, written = results_of(sorted(raw.glob("*.json")), options)
    outcomes.append(written)
    log = "\n".join(f"===== {one.name}: {one.state}, {one.seconds:.0f} s\n{one.output}" for one in outcomes)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "gpu.log").write_text(log, encoding="utf-8")
    for one in outcomes:
        if one.state == "FAILED":
            print(f"===== {one.name}\n" + "\n".join(one.output.splitlines()[-25:]))
    print(table)
    print("\n".join(f"{one.state:8}{one.name:24}{one.seconds:5.0f} s  {last_line(one)}" for one in outcomes))
    print(f"{time.time() - start:.0f} s")
    return int(any(one.state == "FAILED" for one in outcomes))


def correctness(device: str, environment: dict[str, str], options: argparse.Namespace) -> list[Outcome]:
    """The tests, the checks and the sanitizer, side by side."""
    python = [sys.executable, "-m"]
    steps = {name: [*python, "benchmarks.checks", name, "--device", device] for name in CHECKS}
    if not options.no_tests and not options.dry_run:
        tests = [*python, "pytest", "tests", "-q", "-p", "no:cacheprovider", "--maxfail=60"]
        tests += [f"--ignore=tests/test_{name}.py" for name in WITHOUT_GPU]
        steps["tests"] = [*tests, "-n", "6"] if importlib.util.find_spec("xdist") else tests
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if sanitizer and device == "cuda":
        for tool in ("memcheck", "racecheck"):
            told = ["--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no"]
            # memory straight from the driver, whose bounds the tool knows
            steps[tool] = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", sanitizer, *told, *steps["small"]]
    limit = min(180, options.budget / 2)
    with ThreadPoolExecutor(len(steps)) as pool:
        outcomes = list(pool.map(lambda step: run_step(*step, environment, limit), steps.items()))
    if not sanitizer:
        outcomes.append(Outcome("compute-sanitizer", "skipped", 0, "compute-sanitizer is not on this machine"))
    return [without_support(one) for one in outcomes]


def without_support(one: Outcome) -> Outcome:
    """A sanitizer that cannot work here, or is too slow, is no failure of ours."""
    cannot = any(text in one.output for text in NO_SANITIZER) or "out of time" in last_line(one)
    if one.name in ("memcheck", "racecheck") and one.state == "FAILED" and cannot:
        return one._replace(state="skipped", output=one.output + "\nthe sanitizer cannot work on this machine")
    return one


def measurements(raw: Path, environment: dict[str, str], deadline: float) -> list[Outcome]:
    """The benchmarks, one after another, each with the time it is given."""
    outcomes = []
    for name, seconds in BENCHMARKS.items():
        left = deadline - time.time()
        if left < 15:
            outcomes.append(Outcome(f"bench {name}", "skipped", 0, "there was no time left"))
            continue
        command = [sys.executable, "-m", "pytest", f"benchmarks/bench_{name}.py", "-q", "-p", "no:cacheprovider"]
        command += ["-W", "ignore"]  # what a peer, or the compiler of a GPU never seen before, warns about fails no row
        command += ["-o", "python_files=bench_*.py", "--benchmark-enable", f"--benchmark-json={raw / name}.json"]
        own = min(seconds, left)
        limits = {**environment, "BENCH_DEADLINE": str(time.time() + own - 5)}
        # the deadline ends it in good order, with what it has; the limit only ends what hangs
        outcomes.append(run_step(f"bench {name}", command, limits, own + 60))
    return outcomes


def results_of(raws: Sequence[Path], options: argparse.Namespace) -> tuple[str, Outcome]:
    """The table of the results, which are written to the results' folder."""
    if str(ROOT) not in sys.path:  # as when this file is run by its path
        sys.path.insert(0, str(ROOT))
    from benchmarks import results, tables

    try:
        measured = [json.loads(path.read_text(encoding="utf-8")) for path in raws if path.stat().st_size]
        measured = [one for one in measured if one["benchmarks"]]
        condensed = results.condense(measured, options.commit or results.current_commit())
        path = results.write(condensed, options.out or results.RESULTS)
        return tables.show(condensed), Outcome("results", "ok", 0, str(path))
    except Exception as error:  # whatever it is, the outcomes of the steps must still be printed
        return "", Outcome("results", "FAILED", 0, f"{type(error).__name__}: {error}")


def run_step(name: str, command: Sequence[str], environment: dict[str, str], limit: float) -> Outcome:
    """Run a command; what it said, and whether it failed."""
    start = time.time()
    try:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, errors="replace", start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        return Outcome(name, "FAILED", time.time() - start, str(error))
    try:
        output, _ = process.communicate(timeout=limit)
        state = "FAILED" if process.returncode else "ok"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own processes, too: they would disturb what comes next
        output, _ = process.communicate()
        state, output = "FAILED", f"{output}\nout of time: {limit:.0f} s"
    return Outcome(name, state, time.time() - start, output)


def last_line(one: Outcome) -> str:
    lines = [line for line in one.output.splitlines() if line.strip()]
    return lines[-1][:110] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
