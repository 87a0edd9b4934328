"""Plans stay what they are: a seed draws tomorrow what it draws today, so that runs can be repeated and resumed.

``golden_plans.json`` has a hash of each plan. Where a draw is meant to change, say so in CHANGELOG.md, with the digest
that this file prints when it writes the hashes anew: ``python -m tests.test_golden``.
"""

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mixcollate as mc
from mixcollate.draw import draw_from
from mixcollate.plan import MixPlan
from mixcollate.stream import Stream, numbers

SHAPES = [(7, 3, 33, 25), (4, 1, 8, 64)]
ADDRESSES = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (2**63 + 5, 0, 0), (0, 0, 2**40)]  # (seed, rank, step)
TRANSFORMS = [
    "MixUp()",
    "MixUp(alpha=0.2, p=0.5)",
    "MixUp(per='sample', pairing='shuffle')",
    "MixUp(per='batch', pairing='roll')",
    "MixUp(pairing='flip')",
    "CutMix()",
    "CutMix(alpha=0.3, placement='inside', per='sample')",
    "CutMix(placement='timm', correct_lam=False)",
    "CutMix(minmax=(0.2, 0.7), per='batch', p=0.5)",
    "RICAP()",
    "RICAP(beta=1.0, per='batch', pairing='roll')",
    "ResizeMix()",
    "ResizeMix(scale=(0.3, 0.6), interpolation='nearest', clipped=True, per='sample')",
    "FMix()",
    "FMix(alpha=0.4, decay=1.5, per='batch')",
    "Mosaic()",
    "Mosaic(centre=(0.4, 0.6), per='sample', pairing='shuffle')",
    "Cutout()",
    "Cutout(length=5, holes=2, inside=True, p=0.5)",
    "Cutout(fill='noise', per='batch')",
    "RandomErasing()",
    "RandomErasing(1.0, scale=(0.02, 0.4), log_ratio=False, attempts=100, value='random')",
    "RandomErasing(1.0, count=(1, 3), fill='channel_noise', attempts=2, scale=(0.3, 0.9))",
    "GridMask()",
    "GridMask(tile=(3, 9), ratio=0.4, rotate=1, invert=True, p=1.0)",
    "HideAndSeek()",
    "HideAndSeek(sizes=(0, 2, 4), hide=0.3, per='batch')",
    "RandomChoice([MixUp(alpha=0.8), CutMix()], p=[0.25, 0.75])",
    "RandomChoice([RICAP(), ResizeMix(), Cutout()], per='sample')",
    "Compose([MixUp(), CutMix(), RandomErasing(p=0.5)])",
    "Compose([RandomChoice([MixUp(), FMix(decay=2.0)]), GridMask(p=0.5)])",
]
FILE = Path(__file__).with_name("golden_plans.json")
CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def drawn(expression, shape, address) -> MixPlan:
    transform = eval(expression, dict(vars(mc)))
    return transform.draw_plan(draw_from(numbers(*address), shape, transform.pairing))


def hashed(plan: MixPlan | None) -> str:
    """Of all parts; real numbers to five digits: sines and logarithms differ in their last bit between machines."""
    state = hashlib.sha256()
    while plan is not None:
        for name in sorted(f.name for f in fields(plan) if f.name != "then"):
            part = getattr(plan, name)
            if isinstance(part, np.ndarray):
                whole = np.rint(part * 1e5).astype(np.int64) if part.dtype.kind == "f" else part
                state.update(f"{name} {part.dtype} {part.shape} ".encode() + whole.tobytes())
            elif part is not None:
                state.update(f"{name} {part} ".encode())
        plan = plan.then
    return state.hexdigest()[:16]


def computed() -> dict[str, dict[str, str]]:
    cases = [(shape, address) for shape in SHAPES for address in ADDRESSES]
    return {e: {f"{s} at {a}": hashed(drawn(e, s, a)) for s, a in cases} for e in TRANSFORMS}


def digest() -> str:
    return hashlib.sha256(FILE.read_bytes()).hexdigest()[:12]


def test_plans_are_what_they_were():
    before, now = json.loads(FILE.read_text()), computed()
    assert before.keys() == now.keys(), "write the hashes of new cases: python -m tests.test_golden"
    changed = [f"{e}: {case}" for e in now for case in now[e] if now[e][case] != before[e].get(case)]
    assert not changed, "these draws have changed: say so in CHANGELOG.md, and why, then python -m tests.test_golden"


def test_every_method_has_a_golden_plan():
    assert {name for name in mc.methods.ALL if f"{name}(" in " ".join(TRANSFORMS)} == set(mc.methods.ALL)


def test_the_changelog_knows_of_the_hashes():
    assert f"`{digest()}`" in CHANGELOG.read_text(), (
        f"the draws, or the cases, of golden_plans.json have changed: say which in CHANGELOG.md, and `{digest()}`"
    )


@pytest.mark.parametrize(("seed", "rank", "step"), ADDRESSES[:4])
def test_a_transform_draws_the_golden_plans(monkeypatch, seed, rank, step):
    monkeypatch.setenv("RANK", str(rank))
    transform = mc.CutMix(seed=seed)
    transform.stream.step = step
    expected = hashed(drawn("CutMix()", (7, 3, 33, 25), (seed, rank, step)))
    assert hashed(transform.make_plan(torch.empty(7, 3, 33, 25))) == expected
    stream = Stream(seed)
    stream.step = step
    assert hashed(mc.CutMix().make_plan(torch.empty(7, 3, 33, 25), stream=stream)) == expected


def test_a_hash_sees_every_part():
    plan = drawn("Compose([MixUp(), CutMix(), RandomErasing(1.0)])", SHAPES[0], ADDRESSES[0])
    seen = {hashed(plan), hashed(plan.then)}
    for part in ("partners", "shares", "own_outside"):
        changed = getattr(plan, part).copy()
        changed.flat[0] += 1
        seen.add(hashed(replace(plan, **{part: changed})))
    box = plan.then.box.copy()
    box[0, 0] += 1
    seen.add(hashed(replace(plan, then=replace(plan.then, box=box))))
    assert len(seen) == 6


if __name__ == "__main__":
    FILE.write_text(json.dumps(computed(), indent=1) + "\n")
    print(f"wrote {FILE.name}, whose digest is `{digest()}`")
