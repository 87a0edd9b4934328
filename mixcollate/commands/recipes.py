"""Names and Python-like texts for transforms, as the command line takes them: read, never evaluated."""

import ast
from typing import Any

from mixcollate import methods, schedules
from mixcollate.containers import Compose, RandomChoice
from mixcollate.transforms import MixTransform

RECIPES = {
    "mixup-or-cutmix": "RandomChoice([MixUp(), CutMix()])",
    # DeiT's mixtures and erasing; its label smoothing belongs to the labels of whoever trains
    "deit": 'Compose([RandomChoice([MixUp(alpha=0.8), CutMix()]), RandomErasing(p=0.25, fill="noise")])',
    # one draw a batch over a random permutation, as in the mixup paper's code and the article that starts from it
    "article": 'MixUp(alpha=1.0, per="batch", pairing="shuffle")',
}
"""What has a name beside the methods, as one would write it."""

_CALLS: dict[str, Any] = {
    **methods.ALL,
    "RandomChoice": RandomChoice,
    "Compose": Compose,
    "until": schedules.until,
    "ramp": schedules.ramp,
}
METHODS = {name.lower(): name for name in methods.ALL}
"""The methods' classes by what the command line calls them."""


def parse(text: str) -> MixTransform:
    """The transform of a name (``"cutmix"``, ``"deit"``) or a text (``"RandomChoice([MixUp(alpha=0.8), CutMix()])"``).

    Only calls of this library's transforms and schedules with literal arguments are understood; anything else is a
    ValueError that says so.
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
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in _CALLS:
            raise ValueError(f"{name} is unknown here; known are {', '.join(_CALLS)}")
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f"{name} takes no **arguments here; write them out")
        options = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        return _CALLS[name](*map(_value, node.args), **options)
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(element) for element in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"{ast.unparse(node)} is no call of {', '.join(_CALLS)}, nor a literal") from error
