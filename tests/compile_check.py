"""Does every kernel compile for the other architectures? ``python -m tests.compile_check [ARCHITECTURE ...]``

Compiles for each of them what ``test_fused_aot`` compiles for an H200; with ``--sample``, a few kernels for a few of
them. Triton includes the compilers, so no GPU is needed. Nothing is run: a kernel that compiles may still be wrong.
"""

import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget

from tests.test_fused_aot import CASES, TARGETS, compiled_for, launch_of

ARCHITECTURES = {f"sm_{capability}": GPUTarget("cuda", capability, 32) for capability in (75, 80, 86, 89, 90, 100, 120)}
ARCHITECTURES |= {name: GPUTarget("hip", name, 64) for name in ("gfx90a", "gfx942")}
ARCHITECTURES |= {"gfx1100": GPUTarget("hip", "gfx1100", 32)}

SAMPLE = ["with targets: pair u8 -> bf16, cutmix", "in place fp32, cutmix"], ["sm_75", "sm_89", "gfx942"]


class Used(NamedTuple):
    """Resources of a compiled kernel: registers of a thread, and spilled bytes (AMD: registers)."""

    registers: int
    spilled: int


def used(compiled) -> Used:
    if "amdgcn" in compiled.asm:
        text = compiled.asm["amdgcn"]
        return Used(*(int(re.search(rf"\.{name}:\s*(\d+)", text)[1]) for name in ("vgpr_count", "vgpr_spill_count")))
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        run = subprocess.run([tool, "-res-usage", cubin.name], capture_output=True, text=True, check=True)
    said = run.stdout + run.stderr
    return Used(*(int(re.search(rf"{name}:(\d+)", said)[1]) for name in ("REG", "STACK")))


def check(name: str, cases: list[str]) -> tuple[str, list[str]]:
    """A line of the table, and the cases that did not compile."""
    there, refused = [], []
    for case in cases:
        try:
            there.append(used(compiled_for(ARCHITECTURES[name], launch_of(case))))
        except Exception as error:  # whatever a compiler raises
            refused.append(f"{name}, {case}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    registers = [one.registers for one in there] or [0]
    spilling = sum(one.spilled > 0 for one in there)
    line = (
        f"{name:10}{len(there):10}{len(refused):10}{spilling:10}{statistics.median(registers):10.0f}{max(registers):8}"
    )
    return line, refused


def main(names: list[str]) -> int:
    backends = {"cuda": "nvidia", "hip": "amd"}
    print(f"{'':10}{'compiled':>10}{'refused':>10}{'spilling':>10}{'registers':>10}{'most':>8}")
    failed, cases = 0, [*CASES, *TARGETS]
    if "--sample" in names:
        cases, names = SAMPLE
    for name in names or ARCHITECTURES:
        if backends[ARCHITECTURES[name].backend] not in triton.backends.backends:
            print(f"{name:10}this Triton has no such compiler")
            continue
        line, refused = check(name, cases)
        print("\n".join([line, *refused]), flush=True)
        failed += len(refused)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
