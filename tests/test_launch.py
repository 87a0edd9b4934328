"""What reaches the driver: every kernel, launched by Triton's own launcher into a driver without a device.

The interpreter skips this, and compiling ahead of time goes around it.
"""

import ctypes
import importlib.util
import json
import struct
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from mixcollate.kernels.support import FUSED_FROM, c_compiler, has_right_triton, python_header
from tests.simulated_kernel import Kernel

pytestmark = pytest.mark.slow  # Triton builds its launchers with a C compiler, and a driver without a device

U8, F16, BF16 = torch.uint8, torch.float16, torch.bfloat16
BATCHES = {  # where images start, how many elements lie between them, and what they become
    "first": (0, 0, BF16),
    "again": (0, 0, BF16),
    "odd start": (1, 0, BF16),  # images do not begin at multiples of 16 bytes
    "odd gap": (0, 1, BF16),  # only the first does
    "float16": (0, 0, F16),
}


class Launch(NamedTuple):
    """A launch: what the driver got, and what it should have got."""

    kernel: str
    function: int
    grid: list[int]
    threads: int
    parameters: list[int]
    wanted_grid: list[int]
    wanted_threads: int
    wanted: list[int]


def absent_gpu(path: str) -> ctypes.CDLL:
    """The driver without a device, from now on Triton's; for a process of its own, which ``launching`` starts."""
    import triton
    from triton.backends.compiler import GPUTarget

    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)  # found again by its name: torch and Triton ask for that
    from triton.backends.nvidia.driver import CudaLauncher, CudaUtils

    class Driver:
        utils, launcher_cls = CudaUtils(), CudaLauncher
        get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
        get_current_device = staticmethod(lambda: 0)
        get_current_stream = staticmethod(lambda device: 0)

    triton.runtime.driver.set_active(Driver())
    return library


def launching(module: str, folder: Path, compiler: str) -> str:
    """What a module of the tests prints that launches without a GPU: in this process Triton may be interpreting."""
    from tests.ahead_of_time import compiling

    library = folder / "libcuda.so.1"
    headers = Path(importlib.util.find_spec("triton").origin).parent / "backends/nvidia/include"
    build = [compiler, "-shared", "-fPIC", f"-I{headers}", "-Wl,-soname,libcuda.so.1", "-o", library]
    subprocess.run([*build, Path(__file__).with_name("absent_gpu.c")], check=True)
    (folder / "libcuda.so").symlink_to(library)  # the name that older Tritons link with
    return compiling(
        module,
        library,
        # torch asks this driver, too, which is too old; Triton builds syntax trees in a way that Python 3.13 warns of
        options=("-W", "error", "-W", "ignore:CUDA initialization", "-W", "ignore:AnnAssign.__init__ missing"),
        TRITON_LIBCUDA_PATH=str(folder),
        TRITON_CACHE_DIR=str(folder / "cache"),  # what is built against this driver is for nobody else
    )


def launches_without_gpu(driver: ctypes.CDLL) -> dict[str, list[Launch]]:
    """The launches of each of ``BATCHES``, under every plan, with its targets and their loss."""
    import triton

    from mixcollate import MixUp
    from mixcollate.kernels import fused, fused_targets, launch, packed
    from tests.test_fused_aot import B, H, W, plans

    wanted, made = [], []

    @ctypes.CFUNCTYPE(
        None, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_void_p)
    )
    def record(kernel, function, sizes, parameters):
        grid, threads, formats, values = wanted
        read = [struct.unpack(f, ctypes.string_at(parameters[k], struct.calcsize(f)))[0] for k, f in enumerate(formats)]
        made.append(Launch(kernel.decode(), function, sizes[:3], sizes[3], read, grid, threads, values))

    driver.tell(record)

    def watched(kernel, grid, tensors, numbers, constants, **options):
        passed = [number for number in numbers if isinstance(number, float) or number != 1]  # 1 is compiled in
        formats = "P" * len(tensors) + "".join("f" if isinstance(number, float) else "i" for number in passed)
        rounded = [struct.unpack("f", struct.pack("f", n))[0] if isinstance(n, float) else n for n in passed]
        values = [*(tensor.data_ptr() for tensor in tensors), *rounded]
        wanted[:] = [list(grid), 32 * options.get("num_warps", 4), formats, values]
        launch.launch(kernel, grid, tensors, numbers, constants, **options)

    fused.launch = fused_targets.launch = watched
    placed, ones = [packed.pack(plan, "cpu") for plan in plans().values()], torch.ones(4)
    labels, shares = torch.zeros(B, 2, dtype=torch.int64), torch.ones(B, 2)
    logits = torch.zeros(B, 1000, requires_grad=True)
    memory = torch.zeros(B * (3 * H * W + 1), dtype=U8)
    batches = {}
    for name, (start, gap, dtype) in BATCHES.items():
        images = memory.as_strided((B, 3, H, W), (3 * H * W + gap, H * W, W, 1), start)
        for plan in placed:
            fused.mix(images, plan, torch.empty(B, 3, H, W, dtype=dtype), affine=(ones, ones))
        unwritten = fused_targets.prepare_dense(labels[:, 0], placed[0], num_classes=10, label_smoothing=0.1)
        unwritten.write()
        fused.mix(images, placed[0], torch.empty(B, 3, H, W, dtype=dtype), affine=(ones, ones), targets=unwritten)
        fused_targets.soft_cross_entropy(logits, shares, labels, label_smoothing=0.1).sum().backward()
        fused_targets.soft_cross_entropy(logits, logits.detach(), reduction="mean").backward()
        batches[name] = made.copy()
        made.clear()
    for count in (32, 31):
        few = torch.zeros(count, 3, 16, 16)
        plan = packed.pack(MixUp(seed=1).make_plan(few), "cpu")
        unwritten = fused_targets.prepare_dense(torch.zeros(count, dtype=torch.int64), plan, num_classes=10)
        fused.mix(few, plan, torch.empty_like(few), affine=None, targets=unwritten)
        unwritten.write()
        batches[f"{count} images"] = made.copy()
        made.clear()
    names = []
    triton.knobs.runtime.launch_enter_hook.add(lambda metadata: names.append(metadata.get()["name"]))
    fused.mix(images, placed[0], torch.empty(B, 3, H, W, dtype=dtype), affine=(ones, ones))
    return {**batches, "as a profiler sees it": [made[0]._replace(kernel=name) for name in names]}


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """Made by a process of its own: in this one Triton may be interpreting, or have a GPU."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    if not has_right_triton():
        pytest.skip(f"this torch's Triton does not compile the kernels: they need torch {FUSED_FROM}")
    compiler = c_compiler()
    if compiler is None or python_header() is None:
        pytest.skip("no C compiler, or no Python.h, which Triton needs to launch")
    printed = launching("tests.test_launch", tmp_path_factory.mktemp("driver"), compiler)
    return {name: [Launch(*one) for one in made] for name, made in json.loads(printed).items()}


def test_every_kernel_is_launched_once_a_call(launches):
    first = launches["first"]
    assert len({one.function for one in first}) == len(first) == 23


def test_profilers_see_repeated_launches(launches):
    """Triton's hooks, which Proton sets."""
    assert [one.kernel for one in launches["as a profiler sees it"]] == ["mix_kernel"]


@pytest.mark.parametrize("batch", BATCHES)
def test_arguments_arrive(launches, batch):
    for one in launches[batch]:
        assert (one.grid, one.threads) == (one.wanted_grid, one.wanted_threads)
        assert one.parameters == one.wanted, one.kernel


@pytest.mark.parametrize(
    "batch, anew",
    [
        ("again", set()),
        ("odd start", {"mix_kernel"}),
        ("odd gap", {"mix_kernel"}),
        ("float16", {"mix_kernel", "noise_kernel"}),
    ],
)
def test_what_is_compiled_anew(launches, batch, anew):
    """Kernels are launched again as they are, unless what they were compiled for has changed."""
    for before, after in zip(launches["first"], launches[batch], strict=True):
        assert (before.kernel, before.grid) == (after.kernel, after.grid)
        assert (before.function != after.function) == (before.kernel in anew)


def test_a_smaller_batch_compiles_nothing_anew(launches):
    """The last one of an epoch: kernels are compiled for no number that depends on how many images there are."""
    assert [one.function for one in launches["32 images"]] == [one.function for one in launches["31 images"]]


class Storage:
    """As much of a tensor as the key of a launch asks for."""

    def __init__(self, nbytes):
        self.dtype, self.size = torch.float32, nbytes

    def data_ptr(self):
        return 0

    def get_device(self):
        return 0

    def untyped_storage(self):
        return types.SimpleNamespace(nbytes=lambda: self.size)


@pytest.fixture
def launch(monkeypatch):
    if not has_right_triton():
        pytest.skip(f"this torch's Triton does not launch the kernels: they need torch {FUSED_FROM}")
    launch = pytest.importorskip("mixcollate.kernels.launch", reason="Triton is not installed")
    monkeypatch.setattr(launch, "_COMPILED", {})
    streams = types.SimpleNamespace(get_current_stream=lambda device: 0)
    monkeypatch.setattr(launch, "driver", types.SimpleNamespace(active=streams))
    return launch


def test_amd_compiles_anew_for_large_storages(launch, monkeypatch):
    """Its code for small ones has offsets of 32 bits, and reads 0 from 2**31 - 2 bytes on."""
    for hip, wanted in (("6.4", 2), (None, 1)):
        kernel = Kernel()
        launch._COMPILED.clear()
        monkeypatch.setattr(torch.version, "hip", hip)
        for nbytes in (100, 2**31 - 1, 2**31, 100):
            launch.launch(kernel, (1, 1, 1), [Storage(nbytes)], (), ())
        assert kernel.compiled == wanted


def test_kernels_are_kept_but_not_without_bound(launch):
    """One for each size of images, in a run that has many sizes."""
    kernel = Kernel()
    for size in range(3 * launch.MOST_KEPT):
        launch.launch(kernel, (1, 1, 1), [Storage(1)], (), (size,))
        assert len(launch._COMPILED) <= launch.MOST_KEPT
    assert kernel.compiled == 3 * launch.MOST_KEPT


if __name__ == "__main__":
    print(json.dumps(launches_without_gpu(absent_gpu(sys.argv[1]))))
