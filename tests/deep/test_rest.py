"""Other slow tests: compile every kernel that the tests launch, and mutation testing of the main modules.

Deep because the first runs ``test_fused.py`` again and compiles about 800 kernels, and the second runs tests for each
of 300 mutants, which takes an hour.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.deep


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the tests have compiled them already")
def test_all_that_runs_in_the_interpreter_compiles():
    command = [sys.executable, "-m", "pytest", "tests/test_fused.py", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "COMPILE": "all"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants are run by forks")
def test_most_mutants_are_killed():
    pytest.importorskip("cosmic_ray", reason="Cosmic Ray, which makes the mutants, is not installed")
    command = [sys.executable, "-m", "tests.deep.mutants", "--sample", os.environ.get("MUTANTS", "300")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.rpartition("killed ")[2].partition("%")[0]) >= 85, done.stdout  # with all that survived
