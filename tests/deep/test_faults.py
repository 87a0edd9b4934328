"""Whatever happens to a loader, the error is clear, nothing hangs or leaks, and the next epoch works.

Deep because each fault needs a separate process, which starts workers.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FAULTS = ["killed", "dataset", "collate_fn", "loop", "interrupt", "early break", "garbage"]
pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="what is left behind is read from Linux' /proc"),
]


def run(*command, timeout=600):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_epoch_works_after(fault, context):
    done = run(sys.executable, "-m", "tests.deep.faults", fault, context)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("the next epoch works\n")


def test_the_next_epoch_works_after_shared_memory_was_full():
    """With a /dev/shm of 2 MB, in a separate mount namespace."""
    small = "mount -t tmpfs -o size=2m tmpfs /dev/shm"
    if run("unshare", "--mount", "sh", "-c", small).returncode != 0:
        pytest.skip("this user may not mount a small /dev/shm in a namespace of its own")
    python = f"exec {sys.executable} -m tests.deep.faults full fork"
    done = run("unshare", "--mount", "sh", "-c", f"{small} && {python}")
    assert done.returncode == 0, done.stderr[-3000:]
