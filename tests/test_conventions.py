"""The conventions of the design and the style guide, as tests."""

import ast
import functools
import inspect
import json
import pickle
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from unittest import mock

import pytest
import torch

import mixcollate
from mixcollate.kernels import host

PACKAGE = Path(mixcollate.__file__).parent
ROOT = Path(__file__).parent.parent
LAYERS = [  # a module imports only what stands above it
    ["checks", "kernels.launch"],
    ["plan", "schedules", "stream"],
    ["draw", "memory", "kernels.noise", "kernels.compiled", "kernels.support", "kernels.pixels", "kernels.overlap"],
    ["kernels.bounds"],
    ["kernels.packed", "kernels.fused_targets"],
    ["kernels.tiling"],
    ["kernels.reference", "kernels.fused", "targets"],
    ["losses"],
    ["kernels.host"],
    ["kernels.prepare"],
    ["kernels.api"],
    ["kernels"],
    ["kernels.operator"],
    ["roles"],
    ["stacking"],
    ["execution"],
    ["transforms"],
    ["methods", "containers"],
    ["timm", "batch"],
    ["collate"],
    ["loader"],
    ["__init__"],
    ["integrations"],
    ["commands"],
    ["commands.calibration", "commands.environment", "commands.networks", "commands.preview", "commands.recipes"],
    ["commands.pictures"],
    ["commands.data"],
    ["commands.training"],
    ["commands.summary"],
    ["commands.article", "commands.plots"],
    ["commands.compare"],
    ["commands.demo"],
    ["commands.cli"],
    ["__main__"],
]


def test_a_star_import_brings_the_public_names_alone():
    names = {}
    exec("from mixcollate import *", names)  # not those of its modules, as timm and transforms
    assert names.keys() - {"__builtins__"} == set(mixcollate.__all__)


@functools.cache
def modules():
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def layer(name):
    name = name.removesuffix(".__init__")
    while name not in [module for row in LAYERS for module in row]:
        name = name.rpartition(".")[0] or "__init__"
    return next(height for height, row in enumerate(LAYERS) if name in row)


def imports(path, outermost_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if outermost_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner.removeprefix("mixcollate.") in modules() else node.module


def test_imports_point_down():
    names = {name.removesuffix(".__init__"): path for name, path in modules().items()}
    for name, path in names.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        for imported in imports(path):
            below = imported.removeprefix("mixcollate").removeprefix(".") or "__init__"
            if imported.startswith("mixcollate") and below in names and below not in (name, package):
                sibling = package != "" and below.rpartition(".")[0] == package
                assert layer(below) < layer(name) or (sibling and layer(below) == layer(name)), (
                    f"{name} imports {below}"
                )


def mapped():
    """The lines of the tree in CONTRIBUTING.md: which names each folder has, as patterns."""
    tree = re.search(r"## The map\n\n```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    folders, path = {Path(): []}, []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.match(r"\s*(\S+(?: \S+\.py\b)*)", line)[1].split(" "):
            folders[Path(*path[:depth])].append(name)
            if name.endswith("/"):
                path[depth:] = [name]
                folders[Path(*path)] = []
    return folders


def test_the_map_shows_every_folder_and_file():
    """Where the map says nothing of a folder's files, its own line speaks for them."""
    ignored = (ROOT / ".gitignore").read_text().split()
    for folder, patterns in mapped().items():
        there = [path for path in (ROOT / folder).iterdir() if not path.name.startswith((".", "__pycache__"))]
        code = [path for path in there if path.is_dir() and next(path.rglob("*.py"), next(path.rglob("*.md"), None))]
        names = {f"{path.name}/" for path in code} - {*ignored, "results/"}
        if any(pattern.endswith(".py") for pattern in patterns):
            names |= {path.name for path in there if path.suffix in (".py", ".typed")}
        for name in names if patterns else ():
            assert any(fnmatch(name, pattern) for pattern in patterns), f"no line in CONTRIBUTING.md: {folder / name}"
        for pattern in patterns:
            assert any(fnmatch(name, pattern) for name in names), f"CONTRIBUTING.md shows {folder / pattern}"


@pytest.mark.parametrize(
    "compiler, ways",
    [
        ("triton", {"kernels.launch", "kernels.tiling", "kernels.fused", "kernels.fused_targets"}),
        ("numba", {"kernels.compiled"}),
    ],
)
def test_who_imports_a_compiler(compiler, ways):
    for name, path in modules().items():
        if any(imported.split(".")[0] == compiler for imported in imports(path)):
            assert name in ways
        at_import = {imported.removeprefix("mixcollate.") for imported in imports(path, outermost_only=True)}
        assert name in ways or not ways & at_import


NUMBAS = {
    "broken": "raise OSError('libllvmlite.so is missing')",
    "half installed": "",
    "switched off": "class config: DISABLE_JIT = 1\ndef njit(**options): return lambda function: function",
}


@pytest.mark.parametrize("kind", NUMBAS)
def test_a_numba_that_does_not_compile_is_done_without(kind, tmp_path, monkeypatch):
    Path(tmp_path, "numba.py").write_text(NUMBAS[kind])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delattr(mixcollate.kernels, "compiled", raising=False)
    with mock.patch.dict(sys.modules):
        for name in ("numba", "mixcollate.kernels.compiled"):
            sys.modules.pop(name, None)
        assert host.loops.__wrapped__() is None  # without its cache


def test_exports_are_the_public_surface():
    public = {
        name for name, value in vars(mixcollate).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == {
        *mixcollate.methods.ALL,
        *("Compose", "RandomChoice", "MixupCollate", "MixBatch", "DeviceLoader"),
        *("MixPlan", "SoftTarget", "soft_cross_entropy", "soft_binary_cross_entropy", "soft_accuracy"),
        *("MixTransform", "ErasingTransform", "Draw"),
    }


@pytest.mark.parametrize(
    "name", ["MixUp", "RandomErasing", "RandomChoice", "MixupCollate", "DeviceLoader", "soft_cross_entropy"]
)
def test_options_are_keyword_only(name):
    parameters = list(inspect.signature(getattr(mixcollate, name)).parameters.values())
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty]
    assert [p.name for p in positional[1:]] in ([], ["device"]), "prefer f(x, *, option=…) to f(x, option=…)"


def test_implementations_have_equal_signatures():
    from mixcollate.kernels import fused, host, reference

    assert inspect.signature(host.mix) == inspect.signature(reference.mix)
    arguments = [[(p.name, p.kind) for p in inspect.signature(m.mix).parameters.values()] for m in (reference, fused)]
    of_one_launch = ("targets", inspect.Parameter.KEYWORD_ONLY)  # that only fused has: all a device does is in one
    assert [*arguments[0], of_one_launch] == arguments[1]  # plans come packed to the one, on the host to the other


def public_objects():
    for name in modules():
        module = sys.modules.get(f"mixcollate.{name}") or sys.modules.get(
            f"mixcollate.{name.removesuffix('.__init__')}"
        )
        for key, value in vars(module).items() if module else ():
            if not key.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
                if value.__module__.startswith("mixcollate"):
                    yield f"{value.__module__}.{key}", value


def test_everything_public_has_a_docstring():
    missing = [name for name, value in public_objects() if not inspect.getdoc(value)]
    assert not missing


def test_every_module_says_what_it_is_for_on_its_first_line():
    for name, path in modules().items():
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring and docstring.splitlines()[0].rstrip().endswith((".", ",", ";", ")", ":")), name


WORKS = """
import torch, mixcollate
for method in (mixcollate.MixUp, mixcollate.CutMix):
    images, targets = method(num_classes=4)(torch.rand(4, 3, 8, 8), torch.arange(4))
    assert targets.shape == (4, 4)
"""
IMPORTS = """
import sys, torch, torchvision.transforms.v2
before = set(sys.modules), torch.get_rng_state()
import mixcollate
assert not {"triton", "mixcollate.kernels.fused", "numba"} & (set(sys.modules) - before[0])
assert torch.equal(before[1], torch.get_rng_state())
"""
UNCACHED = """
import sys, types
def njit(**options): raise RuntimeError("cannot cache function: no locator available")
sys.modules["numba"] = types.SimpleNamespace(njit=njit)
"""
BLOCKED = "import sys; sys.modules['triton'] = None\n"  # before torchvision, which imports it where it is
ALONE = {
    BLOCKED: {
        "works without triton": WORKS,
        "needs triton": "import mixcollate.kernels.fused",
    },
    "": {
        "imports no compiler and draws nothing": IMPORTS,
        "works without numba": "import sys; sys.modules['numba'] = None" + WORKS,
        "works where numba cannot keep what it compiles": UNCACHED + WORKS,
    },
}
FORKS = """
import json, os, sys, traceback
import torch  # seconds, and the same for all

def raised_by(code, cases):
    \"""What each case raises after this code, in processes that share what it imports.\"""
    exec(code + "import torchvision.transforms.v2", {})  # seconds, too
    assert not {"numba", "mixcollate"} & set(sys.modules)
    raised = {}
    for name, case in cases.items():
        raised[name] = in_a_fork(exec, case, {})
    return raised

def in_a_fork(function, *arguments):
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            answer = function(*arguments)
        except BaseException:
            answer = traceback.format_exc()[-60_000:]
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    return json.loads(open(reading).read())

assert not {"triton", "numba", "torchvision", "mixcollate"} & set(sys.modules)
raised = [in_a_fork(raised_by, code, cases) for code, cases in json.load(sys.stdin).items()]
print(json.dumps(raised))
"""


@pytest.fixture(scope="module")
def raised():
    """What each of ``ALONE`` raises, in a process of its own in which torchvision is imported and nothing of ours."""
    quiet = ["-W", "error", "-W", "ignore:.*use of fork:DeprecationWarning"]  # NumPy's threads; none of them runs
    done = subprocess.run(
        [sys.executable, *quiet, "-c", FORKS], input=json.dumps(ALONE), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    blocked, others = json.loads(done.stdout)
    return blocked | others


@pytest.mark.parametrize("name", [name for cases in ALONE.values() for name in cases if name != "needs triton"])
def test_alone_it(raised, name):
    assert raised[name] is None


def test_the_isolation_test_can_fail(raised):
    assert "ModuleNotFoundError: import of triton halted" in raised["needs triton"]


def test_no_module_reads_the_gpu_in_the_hot_path():
    kernels = ("kernels.api", "kernels.prepare", "kernels.pixels", "kernels.reference", "kernels.fused")
    for name in (*kernels, "targets", "losses", "transforms", "roles", "execution"):
        path = modules()[name]
        calls = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not calls & {"item", "nonzero"}, name


def test_plans_pickle():
    plan = mixcollate.CutMix().make_plan(torch.empty(4, 3, 8, 8))
    again = pickle.loads(pickle.dumps(plan))
    assert (again.box == plan.box).all() and again.size == (8, 8)
