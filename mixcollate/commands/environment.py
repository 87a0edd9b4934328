"""``mixcollate env``: facts about this machine for a bug report, and which implementation mixes here, and why."""

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import warnings

import torch

from mixcollate.kernels.host import loops
from mixcollate.kernels.support import c_compiler, can_fuse, python_header


def env() -> None:
    """Print the facts about this machine that a bug report needs."""
    facts = {
        "mixcollate": version("mixcollate"),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda})",
        **{name: version(name) for name in ("torchvision", "numpy", "pillow", "triton", "numba", "timm")},
        "C compiler": _c_compiler(),
        "Python.h": python_header() or "not found; Triton needs it (python3-dev)",
        "CPU": f"{os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads",
        "GPU": _gpus(),
        "TRITON_INTERPRET": os.environ.get("TRITON_INTERPRET", "not set"),
        "on the CPU": on_cpu(),
        "on the GPU": on_gpu(),
    }
    for name, value in facts.items():
        print(f"{name + ':':18}{value}")


def on_cpu() -> str:
    """Which implementation mixes CPU tensors, and why."""
    if importlib.util.find_spec("numba") is None:
        return 'impl="host": NumPy and torch; blends take half the time with Numba (pip install "mixcollate[numba]")'
    if loops() is None:
        return 'impl="host": NumPy and torch; Numba is installed, but does not work here'
    return 'impl="host": NumPy and torch, with blends compiled by Numba'


def on_gpu() -> str:
    """Which implementation mixes CUDA tensors, or would do so, and why."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        can_fuse.cache_clear()  # so that it warns again
        fused = can_fuse()
    way = 'impl="fused": Triton kernels' if fused else f'impl="reference": {caught[0].message}'
    return way if torch.cuda.is_available() else f"torch has no GPU here; with one, {way}"


def version(name: str) -> str:
    """The version of a package, or that it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _c_compiler() -> str:
    """The compiler that Triton builds its launchers with, and its version."""
    path = c_compiler()
    if path is None:
        return "not found; Triton needs gcc, clang or CC"
    output = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    return output.partition("\n")[0] or path


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use" if torch.version.cuda else "none: this torch is built without CUDA"
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return "; ".join(f"{gpu.name} (sm_{gpu.major}{gpu.minor}, {gpu.total_memory / 2**30:.0f} GiB)" for gpu in found)
