"""Do the tests notice when the code is wrong? Mutation testing of the main modules, with mutants from Cosmic Ray.

    python -m tests.deep.mutants [--sample 300] [--seed 0] [--seconds 3600] [--watched FOLDER]

Cosmic Ray's own runner starts an interpreter for each mutant, which takes 4 s; this one uses only its operators, and
forks a process that has imported torch. One run of all tests records how long each takes and which lines it runs; each
mutant is given to the tests that run its line, the quickest first. A mutant that cannot be imported is not counted; one
whose tests time out is killed. Survivors are printed with their changes.
"""

import argparse
import ast
import collections
import contextlib
import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TESTS = ["stream", "plan", "draw", "golden", "targets", "collate", "loader", "timm", "transforms", "edge"]
TESTS += ["methods", "operator", "execution", "losses", "memory", "kernels", "wrong_calls", "defaults", "fuzz"]
TESTS = [f"tests/test_{name}.py" for name in TESTS]
TESTS += [
    "tests/test_fused.py::test_mix_targets_is_fused",
    "tests/test_fused.py::test_targets_in_the_launch_of_the_images",
    "tests/test_fused.py::test_the_loss_of_a_gpu_is_that_of_the_host",
    "tests/test_fused.py::test_saved_tensors_may_come_back_in_another_order",
    "tests/test_fused.py::test_numbers_of_numpy_and_torch_reach_kernels_as_pythons",
]
ROOMS = [
    "stream",
    "plan",
    "targets",
    "losses",
    "roles",
    "stacking",
    "execution",
    "batch",
    "collate",
    "loader",
    "methods",
]
ASLEEP = 1200  # seconds after which the tests of a mutant count as hanging, even on a busy machine
IMPORT_FAILED = 70
# Tests that start interpreters or compilers are left out.
SLOW = "not spawn and not forkserver and not of_a_launcher and not inductor and not death"


class Mutated(importlib.abc.MetaPathFinder):
    """Imports one module from another source text."""

    def __init__(self, module: str, path: Path, text: str) -> None:
        self.module, self.path, self.text = module, path, text

    def find_spec(self, name, path=None, target=None):
        if name != self.module:
            return None
        text = self.text

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname):
                return compile(text, self.path, "exec")

        return importlib.util.spec_from_file_location(name, self.path, loader=Loader(name, str(self.path)))


def is_told_apart(operator, node):
    """Whether tests can detect this mutant: not ``==`` for ``is`` with singletons, nor changes to ``strict=`` of equal
    lengths, to ``total=``, which only types see, or to the ``*`` of a signature."""
    if operator.rpartition("_")[2] in ("Is", "IsNot") or operator.endswith(("_Is_Eq", "_IsNot_NotEq")):
        return False
    return node.parent.type != "parameters" and node.parent.get_first_leaf().value not in ("strict", "total")


def all_mutants(path):
    """``(operator, occurrence)`` of each mutant of a file, except those of types, text and decorators."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    tree = get_ast_from_path(path)
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments() or "RemoveDecorator" in name:
            continue
        nodes = [node for node in ast_nodes(tree) for _ in operator_class().mutation_positions(node)]
        yield from ((name, number) for number, node in enumerate(nodes) if is_told_apart(name, node))


def mutated(path, operator, occurrence):
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    return mutate_code(path.read_text(), get_operator(operator)(), occurrence)


def forked(action, seconds, output=os.devnull):
    """The exit code of ``action`` in a forked process, whose output goes to a file; ``None`` if it took too long."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
        sys.dont_write_bytecode = True
        code = IMPORT_FAILED
        try:
            code = action()
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_tests(files, plugin):
    import mixcollate  # noqa: F401

    files = [file for file in files if (ROOT / file.partition("::")[0]).exists()]
    given = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", SLOW]
    given += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # for modules that were imported before the fork
    return int(pytest.main([*given, *files], [plugin]))


class Watch:
    """A plugin that records which lines each test runs, and how long it takes."""

    def __init__(self, folder):
        import coverage

        files = [str(path) for path in sources().values()]
        self.watch = coverage.Coverage(f"{folder}/lines", config_file=False, include=files)
        self.seconds = {}
        self.watch.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        self.watch.switch_context(item.nodeid)
        start = time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - start
        self.watch.switch_context("")

    def pytest_sessionfinish(self):
        self.watch.stop()
        self.watch.save()
        Path(self.watch.config.data_file).with_name("seconds").write_text(json.dumps(self.seconds))


class Only:
    """A plugin that runs the given tests in order; a test that takes far too long ends the process."""

    def __init__(self, names, seconds):
        self.place, self.seconds = {name: place for place, name in enumerate(names)}, seconds

    def pytest_runtest_setup(self, item):
        most = int(time.process_time() + 15 + 5 * self.seconds[item.nodeid])
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((item for item in items if item.nodeid in self.place), key=lambda i: self.place[i.nodeid])


def watched(folder):
    """Seconds of each test, and for each line of each file the tests that run it; ``""`` stands for its import."""
    import coverage

    if not Path(folder, "seconds").exists():
        if forked(lambda: run_tests(TESTS, Watch(folder)), 3600, f"{folder}/output") != 0:
            output = Path(folder, "output").read_text()[-3000:]
            raise SystemExit(f"the tests fail without a mutant, so they cannot kill any: {output}")
    lines = coverage.CoverageData(f"{folder}/lines")
    lines.read()
    seconds = json.loads(Path(folder, "seconds").read_text())
    return seconds, {path: lines.contexts_by_lineno(str(path)) for path in sources().values()}


def tests_of(text, changed, lines, seconds):
    """The tests that run the statement of a changed line, the quickest first; if none, all that run the file."""
    names = {name for line in changed for name in lines.get(line, ())}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.stmt, ast.excepthandler)):
            inner = [part.lineno for part in getattr(node, "body", [])]
            last = min(inner) - 1 if inner else node.end_lineno
            if any(node.lineno <= line <= max(last, node.lineno) for line in changed):
                names |= {name for line in range(node.lineno, last + 1) for name in lines.get(line, ())}
    if "" in names or not names:  # it runs at import, or only in a worker, which is not recorded
        names = set().union(*lines.values())
    return sorted(names - {""}, key=seconds.get)


def judge(module, text, changed, lines, seconds):
    """``killed``, ``survived`` or ``not importable``."""
    path = sources()[module]
    names = tests_of(path.read_text(), changed, lines, seconds)

    def act():
        sys.meta_path.insert(0, Mutated(module, path, text))
        importlib.import_module(module)
        files = dict.fromkeys(name.partition("::")[0] for name in names)
        return run_tests(files, Only(names, seconds))

    code = forked(act, ASLEEP)
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise SystemExit(f"none of the tests for a mutant of {module} exists: {names}")
    return {0: "survived", IMPORT_FAILED: "not importable"}.get(code, "killed")


def sources():
    """Module name to its file."""
    package = ROOT / "mixcollate"
    files = [package / f"{room}.py" for room in ROOMS if room != "methods"]
    files += sorted(path for path in (package / "methods").glob("*.py") if path.stem != "__init__")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def main(arguments=None):
    parser = argparse.ArgumentParser("python -m tests.deep.mutants")
    parser.add_argument("--sample", type=int, default=300, help="mutants, drawn evenly over all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no mutant after that")
    parser.add_argument("--watched", help="folder that keeps the records of the run of all tests for next time")
    options = parser.parse_args(arguments)
    os.environ["TRITON_INTERPRET"] = "1"
    for name in ("torch", "torchvision.transforms.v2", "hypothesis", "numba", "triton", "PIL.Image"):
        with contextlib.suppress(ImportError):  # takes seconds, which forks save
            importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    os.chdir(ROOT)
    everything = [(module, *one) for module, path in sources().items() for one in all_mutants(path)]
    sample = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
    with tempfile.TemporaryDirectory() as folder:
        seconds, lines = watched(options.watched or folder)
    print(f"{len(seconds)} tests, {sum(seconds.values()):.0f} s", flush=True)
    counts = collections.Counter({"killed": 0, "survived": 0, "not importable": 0})
    start = time.monotonic()
    for module, operator, occurrence in sample:
        if time.monotonic() - start > options.seconds:
            break
        path = sources()[module]
        text = mutated(path, operator, occurrence)
        if text is None or text == path.read_text():
            continue
        old, new = path.read_text().splitlines(), text.splitlines()
        blocks = [block for block in difflib.SequenceMatcher(None, old, new).get_opcodes() if block[0] != "equal"]
        changed = [line + 1 for _, first, last, *_ in blocks for line in range(first, max(last, first + 1))]
        outcome = judge(module, text, changed, lines[path], seconds)
        counts[outcome] += 1
        if outcome == "survived":
            changes = difflib.unified_diff(old, new, n=0, lineterm="")
            changes = [line for line in changes if line[:1] in "+-" and line[:3] not in ("+++", "---")]
            print(f"survived: {module}:{changed[0]}: {operator}: " + " => ".join(changes), dict(counts), flush=True)
    judged = counts["killed"] + counts["survived"]
    print(f"{len(everything)} mutants in all; of {sum(counts.values())} tried: {dict(counts)}; "
          f"killed {counts['killed'] / max(judged, 1):.1%} of those that can be imported")  # fmt: skip
    return counts


if __name__ == "__main__":
    main()
