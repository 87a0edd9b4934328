"""Parse transforms on the command line, given by name or as Python code, which is never evaluated."""

import ast
from typing import Any

from mixcollate import methods, schedules
from mixcollate.containers import Compose, RandomChoice
from mixcollate.transforms import MixTransform

RECIPES = {
    "mixup-or-cutmix": "RandomChoice([MixUp(), CutMix()])",
    # DeiT's mixing and erasing, without its label smoothing
    "deit": 'Compose([RandomChoice([MixUp(alpha=0.8), CutMix()]), RandomErasing(p=0.25, fill="noise")])',
    # one draw for each batch and a random permutation, as in the mixup paper's code and in the article
    "article": 'MixUp(alpha=1.0, per="batch", pairing="shuffle")',
}
"""Names beside those of the methods, and what they stand for."""

_CALLS: dict[str, Any] = {
    **methods.ALL,
    "RandomChoice": RandomChoice,
    "Compose": Compose,
    "until": schedules.until,
    "ramp": schedules.ramp,
}
METHODS = {name.lower(): name for name in methods.ALL}
"""The class names of the methods, by their names on the command line."""


def parse(text: str) -> MixTransform:
    """The transform for a name (``"cutmix"``, ``"deit"``) or code (``"RandomChoice([MixUp(alpha=0.8), CutMix()])"``).

    Raises:
        ValueError: for anything but calls of this library's transforms and schedules with literal arguments.
    """
    written = RECIPES.get(text.lower()) or (f"{METHODS[text.lower()]}()" if text.lower() in METHODS else text)
    try:
        tree = ast.parse(written.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"a transform must be {_known()}, got {text!r} ({error})") from error
    if isinstance(tree.body, ast.Name):
        raise ValueError(f"a transform must be {_known()}, got {text!r}")
    try:
        transform = _value(tree.body)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"in the transform {text!r}: {error}") from error
    if not isinstance(transform, MixTransform):
        raise ValueError(f"a transform must be {_known()}, got {text!r}")
    return transform


def _known() -> str:
    return f"one of {', '.join((*METHODS, *RECIPES))}, or Python such as 'RandomChoice([MixUp(alpha=0.8), CutMix()])'"


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name not in _CALLS:
            raise ValueError(f"unknown name {name}; known are {', '.join(_CALLS)}")
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f"{name} cannot take **arguments here; write them out")
        options = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        return _CALLS[name](*map(_value, node.args), **options)
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(element) for element in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"{ast.unparse(node)} is neither a literal nor a call of {', '.join(_CALLS)}") from error
