"""What this machine supports, and which implementation is used for a tensor."""

import functools
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.autograd import forward_ad

from mixcollate.checks import is_compiling, is_readable, is_recorded, is_transformed, warn

Impl = Literal["auto", "reference", "host", "fused"]
IMPLS = get_args(Impl)
FUSED_FROM = "2.9"  # the first torch whose Triton (3.5) can compile the kernels


def choose(images: Tensor, impl: Impl) -> Impl:
    """The implementation that mixes ``images``: the requested one, or for ``"auto"`` the fastest one possible.

    Raises:
        ValueError: if the requested one is not possible.
    """
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {IMPLS}, got {impl!r}")
    differentiable = is_differentiated(images)
    if impl == "auto":
        if images.is_cuda and not (differentiable or is_fake(images) or is_recorded()) and can_fuse():
            return "fused"
        return "host" if is_readable(images) and not differentiable else "reference"
    if impl != "reference" and differentiable:
        raise ValueError(f"impl={impl!r} passes no gradient to images; use impl='reference', or images.detach()")
    if impl != "reference" and is_recorded():
        raise ValueError(
            f"impl={impl!r} cannot be recorded by torch.jit.trace or make_fx; use impl='auto' or 'reference'"
        )
    if (impl == "fused" and not images.is_cuda) or (impl == "host" and images.device.type != "cpu"):
        raise ValueError(f"impl={impl!r} cannot run on {images.device}; use impl='auto' or 'reference'")
    if impl == "fused" and not has_right_triton():
        raise ValueError(
            f"impl='fused' needs torch {FUSED_FROM}, whose Triton compiles its kernels, got {torch.__version__}; use "
            "impl='auto' or 'reference'"
        )
    return impl


def is_differentiated(tensor: Tensor) -> bool:
    """Whether reverse- or forward-mode differentiation goes through a tensor."""
    return (tensor.requires_grad and torch.is_grad_enabled()) or goes_forward(tensor)


def goes_forward(tensor: Tensor) -> bool:
    """Whether forward-mode differentiation (``torch.autograd.forward_ad``) or ``torch.func`` goes through a tensor."""
    if is_compiling():
        return False
    # unpack_dual asks for the level itself, but takes ten times as long
    if is_forward_mode() and forward_ad.unpack_dual(tensor).tangent is not None:  # type: ignore[no-untyped-call]
        return True
    return is_transformed()


def is_forward_mode() -> bool:
    """Whether this code runs inside ``torch.autograd.forward_ad.dual_level``."""
    return forward_ad._current_level >= 0


@functools.cache
def can_fuse() -> bool:
    """Whether Triton and what it needs to compile are there. Called for GPU tensors; warns if not."""
    needed = {
        f"torch {FUSED_FROM}, whose Triton compiles the kernels": has_right_triton(),
        "Triton": importlib.util.find_spec("triton"),
        "a C compiler for Triton": c_compiler(),
        "Python's headers (python3-dev) for Triton": python_header(),
        "a folder that Triton can write to (TRITON_CACHE_DIR)": has_triton_cache(),
    }
    missing = ", ".join(name for name, found in needed.items() if not found)
    if missing:
        warn(f"plain torch mixes on the GPU, several times slower than Triton would; missing: {missing}")
    return not missing


def is_fusible(tensor: Tensor) -> bool:
    """Whether targets or losses of this tensor can be computed by Triton; never while code is being traced."""
    if not tensor.is_cuda:
        return False
    traced = is_compiling() or is_fake(tensor) or goes_forward(tensor) or is_recorded()
    return not traced and can_fuse()


def has_right_triton() -> bool:
    """Whether the Triton release that belongs to this torch can compile the kernels."""
    return torch.__version__ >= FUSED_FROM


def c_compiler() -> str | None:
    """The path of the C compiler that Triton would use."""
    names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return next(filter(None, map(shutil.which, names)), None)


def python_header() -> Path | None:
    """``Python.h`` where Triton looks for it, which is not Debian's own scheme."""
    path = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    return path if path.exists() else None


def has_triton_cache() -> bool:
    """Whether Triton can keep what it compiles; without that, as in a home that is read-only, it does not compile."""
    home = os.environ.get("TRITON_HOME", os.path.expanduser("~/"))
    cache = Path(os.environ.get("TRITON_CACHE_DIR", os.path.join(home, ".triton", "cache"))).absolute()
    nearest = next(folder for folder in (cache, *cache.parents) if os.path.exists(folder))  # it makes those below
    return os.path.isdir(nearest) and os.access(nearest, os.W_OK)
