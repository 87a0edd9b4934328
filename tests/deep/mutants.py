"""Do the tests notice when the code is wrong? Mutants of the rooms that decide, made by Cosmic Ray, run by forks.

    python -m tests.deep.mutants [--sample 300] [--seed 0] [--seconds 3600]

Cosmic Ray's own runner starts an interpreter for each mutant, 4 s before the first test; this takes its operators, and
forks a process that has imported torch. A mutant that cannot be imported counts for nothing; one whose tests take too
long is killed by that. Survivors are printed as what they change.
"""

import argparse
import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
COMMON = ["tests/test_golden.py", "tests/test_fuzz.py"]
TESTS = {  # what is run for a module, the likeliest to notice first
    "plan": [
        "tests/test_plan.py",
        *COMMON,
        "tests/test_operator.py",
        "tests/test_transforms.py",
        "tests/test_collate.py",
    ],
    "targets": ["tests/test_targets.py", "tests/test_fuzz.py", "tests/test_transforms.py", "tests/test_timm.py"],
    "roles": ["tests/test_edge.py", "tests/test_transforms.py", "tests/test_collate.py"],
    "collate": ["tests/test_collate.py", "tests/test_timm.py", "tests/test_edge.py", "tests/test_loader.py"],
    "methods": ["tests/test_methods.py", *COMMON, "tests/test_wrong_calls.py", "tests/test_timm.py"],
}
LIMIT = 300  # seconds for the tests of one mutant
IMPORT_FAILED = 70
SLOW = "not spawn and not forkserver and not launcher and not inductor and not death"  # new interpreters, compilers


class Mutated(importlib.abc.MetaPathFinder):
    """Finds one module with another text."""

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


def all_mutants(path):
    """``(operator, occurrence)`` of each mutant of a file that is not about types, text or decorators alone."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    tree = get_ast_from_path(path)
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments() or "RemoveDecorator" in name:
            continue
        places = [place for node in ast_nodes(tree) for place in operator_class().mutation_positions(node)]
        yield from ((name, number) for number in range(len(places)))


def mutated(path, operator, occurrence):
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    return mutate_code(path.read_text(), get_operator(operator)(), occurrence)


def run(module, path, text, tests):
    """``killed``, ``survived`` or ``not importable``."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.meta_path.insert(0, Mutated(module, path, text))
        sys.dont_write_bytecode = True
        try:
            importlib.import_module("mixcollate")
            importlib.import_module(module)
        except BaseException:
            os._exit(IMPORT_FAILED)
        import pytest

        given = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", SLOW]
        os._exit(int(pytest.main([*given, *[test for test in tests if (ROOT / test).exists()]])))
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {0: "survived", IMPORT_FAILED: "not importable"}.get(code, "killed")
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "killed"


def sources():
    """Module name to ``(file, tests)``."""
    package = ROOT / "mixcollate"
    found = {
        f"mixcollate.{name}": (package / f"{name}.py", tests) for name, tests in TESTS.items() if name != "methods"
    }
    for path in sorted((package / "methods").glob("*.py")):
        if path.stem != "__init__":
            found[f"mixcollate.methods.{path.stem}"] = (path, TESTS["methods"])
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser("python -m tests.deep.mutants")
    parser.add_argument("--sample", type=int, default=300, help="mutants, drawn evenly over all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no mutant is begun after that")
    options = parser.parse_args(arguments)
    import torch
    import torchvision.transforms.v2  # noqa: F401  # seconds, which the forks have for nothing

    torch.set_num_threads(1)
    os.chdir(ROOT)
    everything = [(module, *one) for module, (path, _) in sources().items() for one in all_mutants(path)]
    sample = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
    for module, (path, tests) in {str(tests): (m, (p, tests)) for m, (p, tests) in sources().items()}.values():
        if run(module, path, path.read_text(), tests) != "survived":  # what fails as it is kills nothing
            raise SystemExit(f"the tests of {module} fail, or take {LIMIT} s, without a mutant: {tests}")
    counts = {"killed": 0, "survived": 0, "not importable": 0}
    start = time.monotonic()
    for module, operator, occurrence in sample:
        if time.monotonic() - start > options.seconds:
            break
        path, tests = sources()[module]
        text = mutated(path, operator, occurrence)
        if text is None or text == path.read_text():
            continue
        outcome = run(module, path, text, tests)
        counts[outcome] += 1
        if outcome == "survived":
            lines = difflib.unified_diff(path.read_text().splitlines(), text.splitlines(), n=0, lineterm="")
            changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
            print(f"survived: {module}: {operator}: " + " => ".join(changed), flush=True)
    judged = counts["killed"] + counts["survived"]
    print(f"{len(everything)} mutants in all; of {sum(counts.values())} tried: {counts}; "
          f"killed {counts['killed'] / max(judged, 1):.1%} of those that can be imported")  # fmt: skip
    return counts


if __name__ == "__main__":
    main()
