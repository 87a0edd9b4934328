"""Bounds checks on the numbers of a plan, made once per plan: a kernel reads memory at the places they name."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from mixcollate.checks import check_flag, check_kind, shown
from mixcollate.plan import FAR, PARTS, Array, MixPlan

_CHECKED = "_checked"
"""Where a plan that has passed keeps a copy of its numbers at that time: arrays can be changed in place later."""

ONE = 0x3F800000
"""The bits of 1.0: read as unsigned integers, exactly the floats in [0, 1] are no larger."""

_ROUNDING = 1e-4  # by how much the rounded shares of an image may miss a sum of 1


def check_bounds(plan: MixPlan) -> None:
    """Refuse a plan, built by hand or modified, whose numbers are out of bounds in any pass.

    Raises:
        ValueError, TypeError: names the part, the rule and the value.
    """
    checked = vars(plan).get(_CHECKED)
    if checked is not None:
        if checked == _numbers(plan):
            return
        plan.forget_pairs()
    _check_size(plan.size)
    _check_partners(plan)
    _check_parts(plan)
    check_flag("plan.fill_mean", plan.fill_mean)
    if plan.then is not None:
        check_kind("plan.then", plan.then, MixPlan)
        check_bounds(plan.then)
        if len(plan.then) != len(plan):
            raise ValueError(f"plan.then must be of the {len(plan)} images of the pass before, got {len(plan.then)}")
    if not plan.pairs_hold:
        plan.forget_pairs()
    vars(plan)[_CHECKED] = _numbers(plan)


def mark_as_checked(plan: MixPlan) -> None:
    """Skip the check of a plan, all passes, that this library's own methods drew; if it is modified, it is checked."""
    vars(plan)[_CHECKED] = _numbers(plan)
    if plan.then is not None:
        mark_as_checked(plan.then)


def _numbers(plan: MixPlan) -> list[bytes]:
    """Everything that can be out of bounds, in all passes; bitmaps cannot."""
    numbers = [plan.partners.tobytes(), plan.shares.tobytes()]
    numbers += [array.tobytes() for name, array in plan.parts.items() if name not in ("bitmap", "hidden")]
    return numbers if plan.then is None else numbers + _numbers(plan.then)


def _check_size(size: Any) -> None:
    """The size must be ``(height, width)``."""
    if not isinstance(size, tuple) or len(size) != 2 or not all([isinstance(n, int) and n >= 0 for n in size]):
        raise ValueError(f"plan.size must be two integers (height, width), got {shown(size)}")


def _check_partners(plan: MixPlan) -> None:
    """Partners must be in the batch, and the shares of an image and its partners must sum to one."""
    _check_array("partners", plan.partners, (None,), np.int64)
    _check_array("shares", plan.shares, (None,), np.float32)
    batch, several = plan.partners.shape
    if plan.shares.shape != (batch, 1 + several):
        raise ValueError(
            f"plan.shares must be of shape {(batch, 1 + several)} for {several} partners, got {plan.shares.shape}"
        )
    if plan.partners.size and _greatest(plan.partners) >= batch:
        least, most = plan.partners.min(), plan.partners.max()
        raise ValueError(f"plan.partners must be in 0 … {batch - 1}, got {least} … {most}")
    _check_shares("shares", plan.shares)
    totals = plan.shares.sum(1)
    if totals.size and not np.abs(totals - 1).max() <= _ROUNDING:
        raise ValueError(f"plan.shares must sum to 1 in each row, got {totals.min()} … {totals.max()}")


def _check_parts(plan: MixPlan) -> None:
    """Each part must have its shape, dtype and range, and come with those that it needs."""
    parts, (batch, several) = plan.parts, plan.partners.shape
    for name, array in parts.items():
        _check_array(name, array, PARTS[name].shape, PARTS[name].dtype)
    for name, array in parts.items():
        if len(array) != batch:
            raise ValueError(f"plan.{name} must have a row for each of {batch} images, got {len(array)}")
        if name in _RULES and array.size:
            _RULES[name](name, array, plan)
        if not parts.keys() >= (needed := _NEEDED.get(name, set())):
            raise ValueError(f"plan.{name} must come with {' and '.join(sorted(needed))}, got a plan of {[*parts]}")
    if plan.corner is not None and several != 3:
        raise ValueError(f"plan.partners must name three per image if there is a corner, got {several}")
    if plan.own_outside is not None and several == 0:
        raise ValueError("plan.partners must name one per image if there is an own_outside, got none")
    if plan.own_outside is None and plan.corner is None and (plan.own_share < 1).any():
        raise ValueError(
            "plan.own_outside or plan.corner must say how pixels are mixed if plan.shares mix labels, got a plan of "
            f"{[*parts]} with own shares from {plan.own_share.min()}"
        )


def _check_array(name: str, array: Any, shape: tuple[int | None, ...], dtype: type[np.generic]) -> None:
    """A part must be a NumPy array of a dtype that all implementations read alike, one row of this shape per image."""
    if not isinstance(array, np.ndarray):
        way_out = "" if array is None else "; np.asarray makes one"
        raise TypeError(f"plan.{name} must be a NumPy array, got {shown(array)}{way_out}")
    if array.ndim != 1 + len(shape) or any([n not in (None, m) for n, m in zip(shape, array.shape[1:], strict=True)]):
        axes = ", ".join(["B", *("n" if n is None else str(n) for n in shape)])
        raise ValueError(f"plan.{name} must be [{axes}], got {array.shape}")
    known = (dtype,) if dtype in (np.float32, np.uint8) else (dtype, np.int32, np.int64)
    if array.dtype not in known:
        names = " or ".join(dict.fromkeys(np.dtype(one).name for one in known))
        raise ValueError(f"plan.{name} must be {names}, got {array.dtype}; .astype(np.{known[0].__name__}) casts it")


def _greatest(array: Array, axis: int | None = None) -> Any:
    """The greatest bit pattern. One pass checks both bounds, as negative numbers have greater patterns than others."""
    return np.maximum.reduce(array.view(f"u{array.itemsize}"), axis=axis).tolist()


def _check_shares(name: str, array: Array, plan: MixPlan | None = None) -> None:
    """Shares must be in [0, 1]."""
    if array.size and _greatest(array) > ONE and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"plan.{name} must be in [0, 1], got {array.min()} … {array.max()}")


def _check_boxes(name: str, array: Array, plan: MixPlan) -> None:
    height, width = plan.size
    if name == "erase_box" and plan.fill is not None and plan.fill.shape[1] < array.shape[1]:
        raise ValueError(f"plan.fill must have one row per box, {array.shape[1]}, got {plan.fill.shape[1]}")
    boxes = array.reshape(-1, 4)
    if any(map(operator.gt, _greatest(boxes, axis=0), (height, width, height, width))):
        raise ValueError(
            f"plan.{name} must be boxes (top, left, bottom, right) within (height, width) {plan.size}, "
            f"got {boxes.min(0).tolist()} … {boxes.max(0).tolist()}"
        )


def _check_bitmap(name: str, array: Array, plan: MixPlan) -> None:
    wanted = (plan.size[0], -(-plan.size[1] // 8))
    if array.shape[1:] != wanted:
        raise ValueError(f"plan.{name} must be [B, {wanted[0]}, {wanted[1]}], got {array.shape}")


def _check_shift(name: str, array: Array, plan: MixPlan) -> None:
    """Every piece that has pixels must read within its image."""
    if plan.corner is None:
        return
    edge = np.minimum(plan.corner, plan.size)  # [B, 2]
    none, whole = np.zeros_like(edge), np.broadcast_to(np.asarray(plan.size, edge.dtype), edge.shape)
    first, second = (none, edge), (edge, whole)
    for piece, (rows, cols) in enumerate([(r, c) for r in (first, second) for c in (first, second)]):
        begin, end = (np.stack([rows[k][:, 0], cols[k][:, 1]], 1) for k in (0, 1))
        read = np.all(begin < end, axis=1, keepdims=True)
        moved = array[:, piece]
        if (read & ((begin + moved < 0) | (end + moved > whole))).any():
            raise ValueError(
                f"plan.{name} must leave every piece within (height, width) {plan.size}, "
                f"got {moved.min(0).tolist()} … {moved.max(0).tolist()} for piece {piece}"
            )


def _check_cells(name: str, array: Array, plan: MixPlan) -> None:
    if array.min() < 1:
        raise ValueError(f"plan.{name} must be sides of at least one pixel, got {array.min()}")
    if plan.hidden is not None:
        rows, cols = plan.hidden.shape[1], 8 * plan.hidden.shape[2]
        side = int(array.min())
        if rows * side < plan.size[0] or cols * side < plan.size[1]:
            raise ValueError(
                f"plan.hidden must have bits for all cells of {side} pixels in {plan.size}, got {rows, cols}"
            )


def _check_grid(name: str, array: Array, plan: MixPlan) -> None:
    if not (-FAR <= array.min() and array.max() <= FAR and array[:, :2].min() >= 0):
        raise ValueError(
            f"plan.{name} must have tiles and holes in 0 … {FAR}, and offsets in {-FAR} … {FAR}, got "
            f"{array.min(0).tolist()} … {array.max(0).tolist()}"
        )


def _check_fill(name: str, array: Array, plan: MixPlan) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"plan.{name} must be finite, got {array[~np.isfinite(array)][0]}")


def _within(least: int, most: int) -> Callable[[str, Array, MixPlan], None]:
    def check(name: str, array: Array, plan: MixPlan) -> None:
        if not least <= array.min() <= array.max() <= most:
            raise ValueError(f"plan.{name} must be in {least} … {most}, got {array.min()} … {array.max()}")

    return check


_RULES: dict[str, Callable[[str, Array, MixPlan], None]] = {
    "own_outside": _check_shares,
    "own_inside": _check_shares,
    "box": _check_boxes,
    "bitmap": _check_bitmap,
    "resized": _within(0, 2),
    "corner": _within(0, FAR),
    "shift": _check_shift,
    "erase_box": _check_boxes,
    "grid": _check_grid,
    "turn": _within(-1, 1),
    "cell": _check_cells,
    "fill": _check_fill,
    "noise": _within(0, 2**32 - 1),
}
_NEEDED = {
    "own_inside": {"own_outside", "box"},
    "box": {"own_outside", "own_inside"},
    "bitmap": {"box"},
    "resized": {"box"},
    "corner": {"shift"},
    "shift": {"corner"},
    "erase_box": {"fill"},
    "grid": {"fill", "turn"},
    "turn": {"grid"},
    "cell": {"hidden"},
    "hidden": {"cell", "fill"},
    "noise": {"fill"},
}
