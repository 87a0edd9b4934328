"""The packed plan, and the operator that torch.compile sees."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, is_fake
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixcollate import MixUp, MixupCollate, targets
from mixcollate.kernels import mix, mix_masks, support
from mixcollate.kernels.packed import PackedPlan, layout_from_key, pack
from mixcollate.kernels.prepare import Call
from mixcollate.plan import PARTS, MixPlan, chain, identity, two_shares
from mixcollate.targets import mix_targets
from tests.cases import METHODS
from tests.cases import plan as plan_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, SIZE = 4, (6, 10)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def mixup(partner, own):
    own = np.asarray(own, np.float32)
    return MixPlan(size=SIZE, partners=np.asarray(partner)[:, None], shares=two_shares(own), own_outside=own)


def pairs(share=0.25):
    return mixup([1, 0, 3, 2], [share, share, 0.5, 0.5])


def full():
    """A plan with every part in it, mixed in one pass and erased in two."""
    numbers = np.random.default_rng(0)
    batch = mixup([1, 2, 3, 0], [0.1, 0.2, 0.3, 1.0])
    first = replace(
        batch,
        partners=np.array([[1, 2, 3], [2, 3, 0], [0, 0, 0], [3, 3, 3]]),
        shares=np.full((BATCH, 4), 0.25, np.float32),
        own_inside=np.float32([0, 0.5, 1, 0]),
        box=np.int32([[0, 0, 3, 4], [1, 1, 2, 2], [0, 0, 0, 0], [2, 3, 6, 10]]),
        bitmap=numbers.integers(0, 256, (BATCH, 6, 2), dtype=np.uint8),
        resized=np.int8([0, 1, 2, 0]),
        corner=np.int32([[3, 4], [0, 0], [6, 10], [2, 2]]),
        shift=np.zeros((BATCH, 4, 2), np.int32),
    )
    return chain(first, erasing())


def erasing():
    numbers = np.random.default_rng(1)
    return replace(
        identity(BATCH, SIZE),
        erase_box=np.int32([[[0, 0, 2, 2]], [[1, 1, 3, 3]], [[0, 0, 0, 0]], [[2, 2, 6, 10]]]),
        grid=np.int32([[4, 2, 1, 1, 0], [0, 0, 0, 0, 0], [3, 1, 0, 2, 1], [5, 5, 0, 0, 0]]),
        turn=np.float32([[1, 0], [0, 1], [0.6, 0.8], [1, 0]]),
        cell=np.int32([2, 3, 2**30, 5]),
        hidden=numbers.integers(0, 256, (BATCH, 3, 1), dtype=np.uint8),
        fill=np.float32([[[1, 2, 3]]] * BATCH),
        noise=np.array([0, 1, 2**32 - 1, 0]),
    )


def assert_same(one, other):
    assert (one.size, one.fill_mean) == (other.size, other.fill_mean)
    for name in ["partners", "shares", *PARTS]:
        a, b = getattr(one, name), getattr(other, name)
        if a is None or b is None:
            assert a is b, name
        else:
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, name)
    assert (one.then is None) == (other.then is None)
    if one.then is not None:
        assert_same(one.then, other.then)


PLANS = {
    "identity": lambda: identity(BATCH, SIZE),
    "pairs": pairs,
    "odd": lambda: mixup([2, 1, 0], [0.5, 1, 0.5]),
    "each": lambda: mixup([1, 0, 3, 2], [0.1, 0.2, 0.3, 0.4]),
    "each, erased": lambda: chain(PLANS["each"](), erasing()),
    "roll": lambda: mixup([3, 0, 1, 2], [0.1, 0.2, 0.3, 0.4]),
    "full": full,
    "erasing": erasing,
    "pairs, erased": lambda: chain(pairs(), erasing()),
    "three passes": lambda: chain(chain(pairs(), erasing()), chain(pairs(0.75), pairs())),
    "none": lambda: identity(0, SIZE),
}


@pytest.mark.parametrize("plan", PLANS)
def test_unpacking_gives_the_plan_back(plan):
    plan = PLANS[plan]()
    packed = pack(plan, DEVICE)
    assert_same(packed.unpack(), plan)
    assert_same(PackedPlan(packed.words, layout_from_key(packed.key)).unpack(), plan)


@pytest.mark.parametrize("plan", PLANS)
def test_labels_find_their_partners_and_shares(plan):
    plan = PLANS[plan]()
    packed = pack(plan, DEVICE)
    while plan is not None:
        np.testing.assert_array_equal(packed.partners.cpu(), plan.partners)
        np.testing.assert_array_equal(packed.shares.cpu(), plan.shares)
        plan, packed = plan.then, packed.then
    assert packed is None


def test_pairs_take_one_row():
    assert pack(pairs(), "cpu").layout.entries == 2
    assert pack(PLANS["odd"](), "cpu").layout.entries == 2
    assert pack(PLANS["each"](), "cpu").layout.entries == 2
    assert pack(PLANS["roll"](), "cpu").layout.entries == 4


def test_copy_replaces_the_numbers_in_place():
    packed = pack(pairs(0.25), DEVICE)
    address = packed.words.data_ptr()
    later = mixup([2, 3, 0, 1], [0.75, 0.5, 0.75, 0.5])
    assert_same(packed.copy_(later).unpack(), later)
    assert packed.words.data_ptr() == address


def test_copy_of_pairs_where_images_of_a_pair_may_differ():
    packed = pack(PLANS["each"](), DEVICE)
    for later in (mixup([2, 3, 0, 1], [0.4, 0.3, 0.2, 0.1]), pairs()):
        assert_same(packed.copy_(later).unpack(), later)


def test_copy_of_a_plan_with_less_in_it():
    packed = pack(chain(pairs(), erasing()), DEVICE)
    packed.copy_(pairs(0.5))
    images = torch.rand(BATCH, 3, *SIZE, device=DEVICE)
    torch.testing.assert_close(mix(images, packed), mix(images, pairs(0.5)), rtol=0, atol=0)


def test_copy_of_a_plan_without_pieces():
    packed = pack(replace(full(), then=None), DEVICE)
    own = np.eye(1, full().shares.shape[1], dtype=np.float32).repeat(BATCH, 0)
    plan = replace(identity(BATCH, SIZE), partners=full().partners, shares=own)
    images = torch.rand(BATCH, 3, *SIZE, device=DEVICE)
    assert torch.equal(mix(images, packed.copy_(plan)), images)


@pytest.mark.parametrize("packed", [False, True])
def test_a_recorded_mix_is_that_of_the_next_images(packed):
    """What NumPy, Numba or Triton write is not recorded."""
    plan = pack(full(), DEVICE) if packed else full()
    images, others = torch.rand(2, BATCH, 3, *SIZE, device=DEVICE)
    recorded = make_fx(lambda images: mix(images, plan, mean=MEAN, std=STD))(images)
    torch.testing.assert_close(
        recorded(others), mix(others, plan, mean=MEAN, std=STD, impl="reference"), rtol=0, atol=0
    )
    impl = "fused" if DEVICE == "cuda" else "host"
    with pytest.raises(ValueError, match=f"impl='{impl}' cannot be recorded by torch.jit.trace or make_fx"):
        make_fx(lambda images: mix(images, plan, impl=impl))(images)


@pytest.mark.parametrize("call", ["mix", "transform", "targets", "copy_"])
def test_no_plan_is_captured(call, monkeypatch):
    """Each replay of the graph would mix by it again. On a device that is not there, while a capture is said to run."""
    if call == "transform" and not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("torch 2.6 makes no plain tensor of a fake one")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(support, "can_fuse", lambda: True)
    monkeypatch.setattr(support, "is_fake", lambda tensor: False)
    transform, shape = MixUp(num_classes=3, seed=1), (BATCH, 3, *SIZE)
    plan = transform.make_plan(torch.empty(shape))
    layout = pack(plan, "cpu").layout
    with FakeTensorMode(allow_non_fake_inputs=True):
        images, labels = torch.empty(shape, device="cuda"), torch.empty(BATCH, dtype=torch.int64, device="cuda")
        packed = PackedPlan(torch.empty(100, dtype=torch.int32, device="cuda"), layout)
        calls = {
            "mix": lambda: mix(images, plan),
            "transform": lambda: transform(images, labels),
            "targets": lambda: mix_targets(labels, plan, num_classes=3),
            "copy_": lambda: packed.copy_(plan),
        }
        with pytest.raises(RuntimeError, match="plan must be packed before a CUDA graph is captured"):
            calls[call]()


BOX = {"box": np.zeros((4, 4), np.int32), "own_inside": np.ones(4, np.float32)}


@pytest.mark.parametrize(
    "plan, message",
    [
        (lambda: mixup([1, 0], [0.5, 0.5]), r"plan must have the \(batch, size, partners, fill_mean\) \(4, .* got \(2"),
        (lambda: mixup([1, 2, 3, 0], [0.5] * 4), "plan must make 2 pairs"),
        (lambda: mixup([0, 1, 2, 3], [0.5] * 4), "plan must make 2 pairs"),
        (lambda: mixup([1, 0, 3, 2], [0.5, 0.4, 0.5, 0.5]), "plan must mix both images of a pair in the same way"),
        (lambda: replace(pairs(), **BOX), "plan has a part '(box|own_inside)' that the packed plan has no"),
        (lambda: chain(pairs(), pairs()), "plan must have as many passes as the packed plan"),
        (lambda: mixup([1, 0, 3, 4], [0.5] * 4), r"plan.partners must be in 0 … 3, got 0 … 4"),
    ],
)
def test_copy_of_a_plan_without_room_is_refused(plan, message):
    packed = pack(pairs(), DEVICE)
    before = packed.words.clone()
    with pytest.raises(ValueError, match=message):
        packed.copy_(plan())
    assert torch.equal(packed.words, before)


def test_copy_of_more_boxes_is_refused():
    packed = pack(erasing(), DEVICE)
    more = replace(erasing(), erase_box=np.zeros((BATCH, 2, 4), np.int32), fill=np.zeros((BATCH, 2, 3), np.float32))
    with pytest.raises(ValueError, match=r"plan.erase_box must fit the packed plan's \(4, 1, 4\), got \(4, 2, 4\)"):
        packed.copy_(more)


def test_copy_of_one_fill_for_all_channels_is_refused():
    packed = pack(erasing(), DEVICE)
    with pytest.raises(ValueError, match=r"plan.fill must fit the packed plan's \(4, 1, 3\), got \(4, 1, 1\)"):
        packed.copy_(replace(erasing(), fill=np.zeros((BATCH, 1, 1), np.float32)))


@pytest.mark.parametrize("value", [-1, 0.5, 256])
@pytest.mark.parametrize("before", [None, pairs, erasing])
def test_integer_images_take_no_fill_that_is_not_whole(value, before):
    """In whichever pass, packed or not, or copied into the place of another plan."""
    fills = [replace(erasing(), fill=np.full((BATCH, 1, 3), fill, np.float32)) for fill in (255, value)]
    whole, plan = fills if before is None else [chain(before(), one) for one in fills]
    images = torch.zeros(BATCH, 3, *SIZE, dtype=torch.uint8, device=DEVICE)
    packed = pack(whole, DEVICE)
    mix(images, packed)
    for refused in (plan, pack(plan, DEVICE), packed.copy_(plan)):
        with pytest.raises(ValueError, match="fill must be whole numbers in 0 … 255"):
            mix(images, refused)
    mix(images, packed.copy_(whole))


def test_a_partner_outside_the_batch_is_refused():
    with pytest.raises(ValueError, match=r"plan.partners must be in 0 … 3, got -1 … 2"):
        pack(mixup([1, 0, -1, 2], [0.5] * 4), DEVICE)


@pytest.mark.parametrize("plan", ["identity", "pairs", "roll", "erasing", "pairs, erased", "three passes"])
def test_mix_takes_a_packed_plan(plan):
    plan = PLANS[plan]()
    images = torch.randint(0, 256, (BATCH, 3, *SIZE), dtype=torch.uint8, device=DEVICE)
    packed = pack(plan, DEVICE)
    torch.testing.assert_close(mix(images, packed), mix(images, plan), rtol=0, atol=0)
    wanted = mix(images, plan, mean=MEAN, std=STD)
    torch.testing.assert_close(mix(images, packed, mean=MEAN, std=STD), wanted, rtol=0, atol=0)
    assert mix(images, packed, out=images) is images


def test_a_packed_plan_is_checked_like_a_plan():
    images = torch.zeros(BATCH, 3, 5, 10, device=DEVICE)
    with pytest.raises(ValueError, match=r"\(height, width\) \(6, 10\)"):
        mix(images, pack(erasing(), DEVICE))
    with pytest.raises(ValueError, match="one row for each of the plan's 4"):
        mix(images[:2], pack(pairs(), DEVICE))
    with pytest.raises(ValueError, match=r"fill must have one value .* images \(4, 2, 6, 10\), got 3"):
        mix(torch.zeros(BATCH, 2, *SIZE, device=DEVICE), pack(erasing(), DEVICE))
    mean = replace(erasing(), fill_mean=True)
    with pytest.raises(ValueError, match="fill='mean' needs mean"):
        mix(torch.zeros(BATCH, 3, *SIZE, device=DEVICE), pack(mean, DEVICE))
    with pytest.raises(ValueError, match=r"plan must be on .*, got meta"):
        mix(images, pack(pairs(), "meta"))


def arguments(plan, dtype=None):
    packed = pack(plan, DEVICE)
    return packed.words, packed.key, list(MEAN), list(STD), dtype, torch.channels_last, "auto"


@pytest.mark.parametrize("plan", ["pairs", "roll", "pairs, erased"])
def test_opcheck(plan):
    plan = PLANS[plan]()
    images = torch.randint(0, 256, (BATCH, 3, *SIZE), dtype=torch.uint8, device=DEVICE)
    floats = torch.rand(BATCH, 3, *SIZE, device=DEVICE).contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.mixcollate.mix, (images, *arguments(plan)))
    torch.library.opcheck(torch.ops.mixcollate.mix, (images, *arguments(plan, torch.float16)))
    torch.library.opcheck(torch.ops.mixcollate.mix_, (floats, None, *arguments(plan)))
    torch.library.opcheck(torch.ops.mixcollate.mix_, (floats, images, *arguments(plan)))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # inductor's of 2.11
@pytest.mark.filterwarnings("ignore:Skipping serialization of:UserWarning")  # and of 2.6
@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],  # builds C++
)
def test_compiles_in_one_graph(backend):
    """Out of place, into ``out``, and in place; and another plan of the same layout is no other program."""
    torch._dynamo.reset()
    images = torch.randint(0, 256, (BATCH, 3, *SIZE), dtype=torch.uint8, device=DEVICE)

    def step(images, out, plan):
        made = mix(images, plan, mean=MEAN, std=STD, dtype=torch.float16) * 2
        mix(images, plan, mean=MEAN, std=STD, out=out)
        mix(out, plan, mean=MEAN, out=out)
        return made.float().mean((2, 3)), out.sum() + 1

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    out, wanted = torch.zeros(2, BATCH, 3, *SIZE, device=DEVICE)
    packed = pack(chain(pairs(), erasing()), DEVICE)
    torch.testing.assert_close(compiled(images, out, packed), step(images, wanted, packed))
    assert torch.equal(out, wanted)
    packed.copy_(chain(mixup([3, 2, 1, 0], [0.9, 0.5, 0.5, 0.9]), erasing()))
    with torch._dynamo.config.patch(error_on_recompile=True):
        torch.testing.assert_close(compiled(images, out, packed), step(images, wanted, packed))
    assert torch.equal(out, wanted)


class WithoutDoubles(TorchDispatchMode):
    """Stands for a device that has no float64, such as MPS: whatever makes or takes one there is an error."""

    ran = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.ran += 1
        for value in tree_leaves((args, kwargs, made)):
            assert not isinstance(value, torch.Tensor) or value.dtype != torch.float64, f"{function} of float64"
        return made


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_plain_torch_needs_no_float64(name, backend, monkeypatch):
    """Where neither Triton nor NumPy gets at the pixels, as on MPS or XPU; compiled, too."""
    torch._dynamo.reset()
    mode, run = WithoutDoubles(), Call.run

    def run_there(call):
        with mode:
            return run(call)

    monkeypatch.setattr(Call, "run", run_there)
    drawn = plan_of(name, (4, 3, 6, 10))
    images = torch.randint(0, 256, (4, 3, 6, 10), dtype=torch.uint8)
    mixing = lambda images, plan: mix(images, plan, mean=MEAN, std=STD, impl="reference")  # noqa: E731
    wanted = mixing(images, drawn)
    if backend is not None:
        mixing = torch.compile(mixing, backend=backend, fullgraph=True)
    before = mode.ran
    torch.testing.assert_close(mixing(images, pack(drawn, "cpu")), wanted, rtol=0, atol=0)
    assert mode.ran > before


def test_other_threads_mix_while_one_compiles():
    """What torch says of compiling is true in all threads, also in one that fetches the next batch meanwhile."""
    torch._dynamo.reset()
    images, labels, mixed = torch.rand(4, 3, 8, 8), torch.arange(4), []
    collate, plan = MixupCollate(num_classes=4, eager=True), pack(MixUp().make_plan(images), "cpu")

    def fetch():
        mixed.extend(collate.mix((images, labels)))
        mixed.append(collate.transform.replay(images, None, collate.transform.make_plan(images)))
        mixed.append(mix(images, plan))

    def backend(graph, inputs):
        thread = threading.Thread(target=fetch)
        thread.start()
        thread.join()
        return graph

    torch.compile(lambda x: 2 * x, backend=backend)(images)
    assert len(mixed) == 4 and not any(map(is_fake, mixed))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32], ids=str)
def test_masks_in_compiled_code(dtype, packed):
    """They are mixed outside the graph, since plans are read on the host."""
    torch._dynamo.reset()
    plan, masks = plan_of("cutmix", (4, 3, 6, 10)), torch.arange(240).view(4, 6, 10).to(DEVICE, dtype)
    placed = pack(plan, DEVICE) if packed else plan
    compiled = torch.compile(lambda masks: 2 * mix_masks(masks + 1, placed), backend="aot_eager")
    assert torch.equal(compiled(masks), 2 * mix_masks(masks + 1, plan))


LABELS_OF_EVERY_DTYPE = [torch.tensor([2, 0, -100, 1]), torch.rand(4, 3), torch.rand(4, 3) < 0.5]


@pytest.mark.parametrize("labels", LABELS_OF_EVERY_DTYPE, ids=lambda labels: str(labels.dtype))
@pytest.mark.parametrize("mode", ["lerp", "union"])
def test_plain_targets_need_no_float64(labels, mode, monkeypatch):
    drawn, options = plan_of("mixup", (4, 3, 6, 10)), {"num_classes": 3, "label_mode": mode, "label_smoothing": 0.1}
    wanted = mix_targets(labels, drawn, **options)
    monkeypatch.setattr(targets, "is_readable", lambda tensor: False)
    with WithoutDoubles():
        made = mix_targets(labels, pack(drawn, "cpu"), **options)
    torch.testing.assert_close(made, wanted, rtol=0, atol=0)


def test_compiled_gradient_is_refused():
    torch._dynamo.reset()
    images = torch.rand(BATCH, 3, *SIZE, device=DEVICE, requires_grad=True)
    compiled = torch.compile(lambda images, plan: mix(images, plan), backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match="no gradient to images|Observed exception"):  # torch 2.6 hides which
        compiled(images, pack(pairs(), DEVICE))


def test_compiled_calls_are_refused_as_others_are():
    """The operator has a plan's words, which do not tell whether its fill suits integers, and images of four axes."""
    images = torch.zeros(BATCH, 3, *SIZE, dtype=torch.uint8, device=DEVICE)
    for options, message in (
        ({}, "fill must be whole numbers in 0 … 255"),
        ({"layout": "XYZ"}, "layout must be one of"),
        ({"layout": "BCT"}, "images must have the 3 axes of layout='BCT'"),
    ):
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda images, plan, options=options: mix(images, plan, **options), backend="aot_eager", fullgraph=True
        )
        packed = pack(replace(erasing(), fill=erasing().fill + np.float32(0.25)), DEVICE)
        with pytest.raises(ValueError, match=message):
            mix(images, packed, **options)
        with pytest.raises(Exception, match=f"{message}|Observed exception"):  # torch 2.6 hides which
            compiled(images, packed)


@pytest.mark.parametrize("layout, shape", [("BCT", (4, 3, 10)), ("BCDHW", (4, 3, 2, 6, 10))])
def test_only_images_have_a_memory_format_when_compiled_too(layout, shape):
    """Signals have the four axes of images by the time that the operator sees them."""
    torch._dynamo.reset()
    images = torch.rand(shape, device=DEVICE)
    packed = pack(MixUp().make_plan(images, layout=layout), DEVICE)

    def step(images):
        return mix(images, packed, layout=layout, memory_format=torch.channels_last)

    for call in (step, torch.compile(step, backend="eager", fullgraph=True)):
        with pytest.raises(Exception, match="memory_format needs images|Observed exception"):  # torch 2.6 hides which
            call(images)


def test_the_operator_needs_no_triton():
    code = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "import torch\n"
        "from mixcollate.kernels import mix\n"
        "from mixcollate.kernels.packed import pack\n"
        "from mixcollate.plan import identity\n"
        "images = torch.rand(2, 3, 4, 4)\n"
        "plan = pack(identity(2, (4, 4)), 'cpu')\n"
        "run = torch.compile(lambda images: mix(images, plan), backend='eager', fullgraph=True)\n"
        "assert torch.equal(torch.ops.mixcollate.mix(images, plan.words, plan.key, *[None] * 4, 'auto'), images)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
