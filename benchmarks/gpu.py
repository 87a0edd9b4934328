"""Run everything that needs a GPU: correctness checks, then benchmarks. ``python -m benchmarks.gpu``

Needs no network and nothing but the working tree, torch and pytest. The tests and the checks run side by side; then the
sanitizers; then the benchmarks, one at a time, most important first, until the budget is spent. If a step fails, the
rest still runs; the exit status is 1 if any failed, and 2 without a GPU. Output and results are written to ``--out`` at
once, so that they survive an early end. ``--dry-run`` does the same on the CPU, with tiny batches.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ("small", "graph", "overtaking", "compiled", "sync", "race", "memory", "loader")
BENCHMARKS = {  # seconds for each, the most important first
    "host": 30,
    "peers": 110,
    "targets": 50,
    "step": 50,
    "loader": 110,
    "cost": 40,
    "growth": 40,
    "naive": 20,
}
WITHOUT_GPU = ("benchmarks", "results", "cli", "fused_aot", "launch")  # tests that do not depend on a GPU
SANITIZERS = ("memcheck", "racecheck")
STEPS = tuple(dict.fromkeys([*CHECKS, "tests", *SANITIZERS, *BENCHMARKS]))  # "loader" is in both
OUT = ROOT / ".benchmarks" / "gpu"
QUICK = 3.0  # seconds in which an idle machine starts Python and imports torch; slower ones get longer limits
NO_SANITIZER = ("Device not supported", "not supported on this")  # messages of the sanitizer on some virtual machines


class Outcome(NamedTuple):
    """The outcome of a step."""

    name: str
    state: str  # "ok", "FAILED" or "skipped"
    seconds: float
    output: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, tiny")
    parser.add_argument("--budget", type=float, default=470, help="seconds for everything")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of results and log (default: %(default)s)")
    parser.add_argument("--only", action="append", metavar="STEP", help=f"one of {', '.join(STEPS)}; may be repeated")
    parser.add_argument("--no-tests", action="store_true", help="leave the test suite out")
    parser.add_argument("--commit", help="what is measured; default: the checked-out commit, or a hash of the sources")
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - set(STEPS):
        parser.error(f"--only must be of {', '.join(STEPS)}, got {', '.join(sorted(unknown))}")
    if not options.dry_run and not has_gpu():
        print("no GPU that torch can use; --dry-run runs everything on the CPU, tiny")
        return 2
    return run(options)


def has_gpu() -> bool:
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def slowness() -> float:
    """How much slower this machine is than an idle one, measured now; at least 1."""
    start = time.time()
    subprocess.run([sys.executable, "-c", "import torch"], check=False)
    return max((time.time() - start) / QUICK, 1.0)


def run(options: argparse.Namespace) -> int:
    """Run all steps, writing the log, the results so far and their table after each."""
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
    steps = Steps(options, environment, slowness())
    steps.check(device, start + options.budget)
    steps.measure(start + options.budget)
    for one in steps.outcomes:
        if one.state == "FAILED":
            print(f"===== {one.name}\n" + "\n".join(one.output.splitlines()[-25:]))
    print(steps.table)
    print("\n".join(f"{one.state:8}{one.name:24}{one.seconds:5.0f} s  {last_line(one)}" for one in steps.outcomes))
    print(f"{time.time() - start:.0f} s; everything is in {options.out}")
    return int(any(one.state == "FAILED" for one in steps.outcomes))


class Steps:
    """The steps of one run, and their outcomes so far."""

    def __init__(self, options: argparse.Namespace, environment: dict[str, str], slow: float) -> None:
        self.options, self.environment, self.slow = options, environment, slow
        self.outcomes: list[Outcome] = []
        self.table = ""
        self.raw = options.out / "raw"
        shutil.rmtree(self.raw, ignore_errors=True)  # of another run
        self.raw.mkdir(parents=True)

    def wanted(self, name: str) -> bool:
        return not self.options.only or name in self.options.only

    def check(self, device: str, deadline: float) -> None:
        """Run the tests and the checks side by side; then the sanitizers, which would slow them down. On a GPU each of
        the two gets half of the time that is left, so that a quarter remains for the benchmarks.
        """
        deadline = deadline if device == "cuda" else float("inf")
        python = [sys.executable, "-m"]
        commands = {name: [*python, "benchmarks.checks", name, "--device", device] for name in CHECKS}
        if not self.options.no_tests and not self.options.dry_run:
            tests = [*python, "pytest", "tests", "-v", "-p", "no:cacheprovider", "--maxfail=60"]
            tests += [f"--ignore=tests/test_{name}.py" for name in WITHOUT_GPU]
            workers = max((os.cpu_count() or 1) - len(CHECKS) // 2, 6)  # the checks run beside them, most for seconds
            commands["tests"] = [*tests, "-n", str(workers)] if importlib.util.find_spec("xdist") else tests
        self.run_together(commands, deadline)
        sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
        if sanitizer and device == "cuda":
            # allocate from the driver, so that the tool knows the bounds
            tools = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", sanitizer, "--error-exitcode", "9"]
            tools += ["--report-api-errors", "no", "--tool"]
            self.run_together({tool: [*tools, tool, *commands["small"]] for tool in SANITIZERS}, deadline)
        elif not self.options.only:
            self.add(Outcome("compute-sanitizer", "skipped", 0, "compute-sanitizer is not on this machine"))

    def run_together(self, commands: dict[str, list[str]], deadline: float) -> None:
        limit = min(self.options.budget / 2 * self.slow, max((deadline - time.time()) / 2, 15))
        commands = {name: command for name, command in commands.items() if self.wanted(name)}
        with ThreadPoolExecutor(max(len(commands), 1)) as pool:
            running = [pool.submit(self.run_one, *command, self.environment, limit) for command in commands.items()]
            for done in as_completed(running):
                self.add(without_support(done.result()))

    def measure(self, deadline: float) -> None:
        """Run the benchmarks one after another, each within its time limit."""
        for name, seconds in BENCHMARKS.items():
            left = deadline - time.time()
            if not self.wanted(name):
                continue
            if left < 15:
                self.add(Outcome(f"bench {name}", "skipped", 0, "there was no time left"))
                continue
            command = [sys.executable, "-m", "pytest", f"benchmarks/bench_{name}.py", "-v", "-p", "no:cacheprovider"]
            command += ["-W", "ignore"]  # warnings of a peer or a compiler must not fail a row
            command += ["-o", "python_files=bench_*.py", "--benchmark-enable"]
            own = min(seconds * self.slow, left)
            limits = {**self.environment, "BENCH_DEADLINE": str(time.time() + own - 5)}
            limits["BENCH_JSON"] = str(self.raw / f"{name}.json")  # written row by row, so that it survives a kill
            # at the deadline it stops by itself; the limit is only for a hang
            outcome = self.run_one(f"bench {name}", command, limits, own + 60 * self.slow)
            self.table, written = results_of(sorted(self.raw.glob("*.json")), self.options)
            self.add(outcome, written)

    def run_one(self, name: str, command: Sequence[str], environment: dict[str, str], limit: float) -> Outcome:
        return run_step(name, command, environment, limit, self.raw / f"{name.replace(' ', '-')}.log")

    def add(self, *outcomes: Outcome) -> None:
        """Record the outcome of a step, here and on disk."""
        for outcome in outcomes:  # an outcome replaces an earlier one of the same name
            self.outcomes = [one for one in self.outcomes if one.name != outcome.name] + [outcome]
        log = "\n".join(f"===== {one.name}: {one.state}, {one.seconds:.0f} s\n{one.output}" for one in self.outcomes)
        (self.options.out / "gpu.log").write_text(log, encoding="utf-8")
        if self.table:
            (self.options.out / "gpu.txt").write_text(self.table, encoding="utf-8")


def without_support(one: Outcome) -> Outcome:
    """Skip, rather than fail, a sanitizer that does not work here or is too slow."""
    cannot = any(text in one.output for text in NO_SANITIZER) or "out of time" in last_line(one)
    if one.name in SANITIZERS and one.state == "FAILED" and cannot:
        return one._replace(state="skipped", output=one.output + "\nthe sanitizer cannot work on this machine")
    return one


def results_of(raws: Sequence[Path], options: argparse.Namespace) -> tuple[str, Outcome]:
    """Write the results so far; their table, and the outcome."""
    if str(ROOT) not in sys.path:  # if this file is run by its path
        sys.path.insert(0, str(ROOT))
    from benchmarks import results, tables

    try:
        measured = [json.loads(path.read_text(encoding="utf-8")) for path in raws if path.stat().st_size]
        measured = [one for one in measured if one["benchmarks"]]
        condensed = results.condense(measured, options.commit or results.current_commit())
        path = results.write(condensed, options.out)
        return tables.show(condensed), Outcome("results", "ok", 0, str(path))
    except Exception as error:  # the outcomes of the steps must be printed in any case
        return "", Outcome("results", "FAILED", 0, f"{type(error).__name__}: {error}")


def run_step(name: str, command: Sequence[str], environment: dict[str, str], limit: float, log: Path) -> Outcome:
    """Run a command, writing its output to ``log`` at once; the outcome."""
    start, late = time.time(), ""
    with log.open("w", encoding="utf-8") as file:
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, start_new_session=True, stdout=file, stderr=subprocess.STDOUT
            )
        except OSError as error:
            return Outcome(name, "FAILED", time.time() - start, str(error))
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with its child processes, which would disturb the next steps
            process.wait()
            late = f"\nout of time: {limit:.0f} s"
    output = log.read_text(encoding="utf-8", errors="replace") + late
    return Outcome(name, "FAILED" if process.returncode else "ok", time.time() - start, output)


def last_line(one: Outcome) -> str:
    lines = [line for line in one.output.splitlines() if line.strip()]
    return lines[-1][:110] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
