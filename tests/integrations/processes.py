"""Several ranks, as torchrun starts them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

LEAVING = """
if torch.distributed.is_initialized():  # an interpreter that ends while the other one still reads may abort
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def run_in_two(code: str, example: str, folder: Path, *arguments: str) -> list[Any]:
    """Run ``code EXAMPLE OUTPUT ...`` in two ranks of torchrun; what each has saved at OUTPUT + rank."""
    script, output = folder / "script.py", folder / "rank"
    script.write_text(code + LEAVING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    command = [*launcher, str(EXAMPLES / f"{example}.py"), str(output), *arguments]
    done = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(f"{output}{rank}") for rank in range(2)]
