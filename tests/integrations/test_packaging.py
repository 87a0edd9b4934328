"""The wheel and the sdist: what is in them, and that the wheel works beside its required dependencies alone."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mixcollate

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def required(names):
    """Installed distributions that these need, and those that they need; no extras."""
    found = {}
    while names:
        name = names.pop()
        dist = distribution(name)
        needed = [Requirement(line) for line in dist.requires or ()]
        if dist.name not in found:
            found[dist.name] = dist
            names |= {one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})}
    return list(found.values())


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    """An interpreter that has the wheel and links to what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/*/site-packages")
    for dist in required({"torch", "torchvision", "numpy"}):
        for top in {file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                os.symlink(dist.locate_file(top), site / top)
    zipfile.ZipFile(built[0]).extractall(site)
    return folder / "bin" / "python"


def run(python, code):
    return subprocess.run(
        [str(python), "-I", "-W", "error", "-c", code], check=False, capture_output=True, text=True, cwd="/"
    )


SMOKE = """
import torch, mixcollate as mc
from torch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8), torch.arange(16))
collate = mc.MixupCollate(mc.RandomChoice([mc.MixUp(), mc.CutMix()]), num_classes=16, mean=0.5, std=0.25)
for images, targets in mc.DeviceLoader(DataLoader(data, 8, collate_fn=collate), "cpu"):
    loss = mc.soft_cross_entropy(images.flatten(1)[:, :16], targets)
assert images.dtype == torch.float32 and targets.shape == (8, 16) and loss.isfinite()
print(mc.__version__, mc.__file__)
"""


def test_the_wheel_works_without_extras(python):
    done = run(python, SMOKE)
    assert done.returncode == 0, done.stderr
    version, file = done.stdout.split()
    assert version == mixcollate.__version__ and str(python.parent.parent) in file
    assert run(python, "import sklearn").returncode != 0  # or the environment is not empty


def test_what_is_in_them(built):
    wheel, sdist = built
    names = zipfile.ZipFile(wheel).namelist()
    assert {"mixcollate/py.typed", "mixcollate/integrations/lightning.py"} <= set(names)
    assert all(name.startswith(("mixcollate/", "mixcollate-")) for name in names)
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/tests/test_loader.py") for name in archive.getnames())


def test_the_version_is_said_once(built):
    assert f"-{mixcollate.__version__}-" in built[0].name
    assert f"\nversion: {mixcollate.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {mixcollate.__version__}" in (ROOT / "CHANGELOG.md").read_text()


IMPORTED = """
import sys, time
start = time.process_time()
import torch, torchvision.transforms.v2
before, middle = set(sys.modules), time.process_time()
import mixcollate
print((time.process_time() - middle) / (middle - start))
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
"""


def test_importing_it_costs_little_beside_torch(python):
    """A share of torch's, as a slow machine lengthens both, and nothing more is imported; the first run compiles."""
    runs = [run(python, IMPORTED) for _ in range(4)]
    assert [one.stderr for one in runs] == [""] * 4
    shares, others = zip(*[one.stdout.splitlines() for one in runs], strict=True)
    assert set(others[0].split()) <= {"mixcollate", "numpy", "torch", "torchvision"}
    assert min(map(float, shares)) < 0.03, shares  # 0.01 is usual: 25 to 60 ms
