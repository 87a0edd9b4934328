"""Checks of public arguments, one for each kind. An error names the argument, the rule and the value it got."""

import math
import os
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.masked import MaskedTensor

T = TypeVar("T")

DTYPES = frozenset(
    {
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.uint16, torch.uint32, torch.uint64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    }
)
"""The dtypes of plain real numbers; complex, quantized and 8-bit floating point ones are not among them."""


class Settled:
    """Base class of objects that are configured when they are made: what is set later would go unchecked, or unused."""

    _settled: frozenset[str] = frozenset()

    def _settle(self, kind: type, names: Iterable[str]) -> None:
        """Make these attributes read-only, unless this is a subclass of ``kind``, which may reuse the names."""
        if type(self) is kind:
            vars(self).update(_settled=frozenset(names))

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._settled:
            kind = type(self).__name__
            raise AttributeError(f"{name} cannot be changed after a {kind} is made, got {shown(value)}; make a new one")
        super().__setattr__(name, value)


def result_of(name: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a user's function. ``StopIteration`` becomes an error: a loader would take it for the end of the epoch."""
    try:
        return function(*arguments)
    except StopIteration as error:
        raise ValueError(f"{name} must return something, but raised StopIteration: give next() a default") from error


def warn(message: str) -> None:
    """Warn at the line that called this library, perhaps through torch, as ``Module.__call__`` does."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("mixcollate", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_choice(name: str, value: T, choices: Sequence[str]) -> T:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")
    return value


def check_flag(name: str, value: object) -> bool:
    """True or False itself, not merely something truthy: ``bool("no")`` is True."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def check_count(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """A whole number from ``least`` to ``most``, from Python, NumPy or a tensor; bools are refused."""
    rule = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    count = as_number(value)
    if not isinstance(count, int):
        raise TypeError(f"{name} must be {rule}, got {shown(value)}")
    if count < least or (most is not None and count > most):
        raise ValueError(f"{name} must be {rule}, got {count}")
    return count


def count_in_environment(name: str, default: int, least: int) -> int:
    """A whole number in an environment variable, such as a launcher sets; ``default`` if there is none."""
    text = os.environ.get(name)
    if not text:  # the usual case, for each plan
        return default
    return check_count(f"{name} in the environment", int(text) if text.isdecimal() else text, least)


def check_number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    advice: str = "",
) -> float:
    """A finite real number from ``low`` to ``high``, from Python, NumPy or a tensor.

    Args:
        name: the argument's name.
        value: what the caller passed.
        low: smallest value.
        high: largest value.
        above: refuse ``low`` itself.
        below: refuse ``high`` itself.
        advice: what to do instead, if the rule does not say so.
    """
    number = as_number(value)
    if number is None or not _within(number, low, high, above, below):
        error = TypeError if number is None else ValueError
        rule, way_out = _interval(low, high, above, below), f"; {advice}" if advice else ""
        raise error(f"{name} must be a finite number{rule}, got {shown(value)}{way_out}")
    return number


def check_probability(name: str, value: object) -> float:
    """A number in [0, 1]."""
    number = as_number(value)
    if number is None or not 0 <= number <= 1:
        error = TypeError if number is None else ValueError
        raise error(f"{name} must be a probability in [0, 1], got {shown(value)}")
    return number


def check_positive(name: str, value: object) -> float:
    """A finite number above 0: how strongly to mix. The message says how to turn mixing off instead."""
    return check_number(name, value, 0, above=True, advice="drop the transform or use p=0 to turn mixing off")


def check_not_negative(name: str, value: object) -> float:
    """A finite number of at least 0: how strongly to mix in one epoch of a schedule, where 0 means not at all."""
    return check_number(name, value, 0)


def check_range(
    name: str, value: object, low: float, high: float = math.inf, *, above: bool = False, whole: bool = False
) -> tuple[float, float]:
    """A pair of finite numbers, in order, from ``low`` to ``high``.

    Args:
        name: the argument's name.
        value: what the caller passed.
        low: lower bound of the first number.
        high: upper bound of the second.
        above: refuse ``low`` itself.
        whole: accept only whole numbers.
    """
    parts = [as_number(part) for part in value] if is_list(value) else []
    pair = [part for part in parts if part is not None and (isinstance(part, int) or not whole)]
    is_pair = len(parts) == len(pair) == 2
    if not is_pair or not (_within(pair[0], low, high, above) and _within(pair[1], pair[0], high)):
        error = ValueError if is_pair else TypeError
        rule = (
            f"(low, high) with low <= high, both {'whole ' if whole else ''}numbers{_interval(low, high, above, False)}"
        )
        raise error(f"{name} must be {rule}, got {shown(value)}")
    return pair[0], pair[1]


def check_class_index(name: str, value: object) -> int:
    """A class index that fits int64; a negative one stands for no class."""
    return check_count(name, value, least=-(2**63), most=2**63 - 1)


def check_counts(name: str, value: object, most: float = math.inf) -> tuple[int, int]:
    """A pair of whole numbers, in order, from 1 to ``most``."""
    low, high = check_range(name, value, 1, most, whole=True)
    return int(low), int(high)


def check_scheduled(name: str, value: T, check: Callable[[str, Any], Any]) -> T:
    """A number that passes ``check``, or a function of the epoch, whose values are checked when they are used."""
    return value if callable(value) else check(name, value)


def check_kind(name: str, value: T, *kinds: type | None) -> T:
    """An instance of one of these classes; ``None`` if that is listed."""
    if type(value) in kinds or (value is None and None in kinds):  # the usual case
        return value
    if not any([kind is not None and isinstance(value, kind) for kind in kinds]):
        names = " or ".join(["None" if kind is None else kind.__name__ for kind in kinds])
        raise TypeError(f"{name} must be a {names}, got {shown(value)}")
    return value


def check_device(value: Any) -> torch.device:
    """The device of this name."""
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be a torch.device or the name of one, got {shown(value)}") from error


def check_tensor(name: str, value: object) -> Tensor:
    """A plain tensor: dense, strided, of real numbers, whose memory holds its values as they are."""
    if is_compiling():  # what is asked here cannot be traced
        return value  # type: ignore[return-value]
    if not isinstance(value, Tensor):
        way_out = "; convert it with torch.as_tensor" if isinstance(value, (np.ndarray, list, tuple)) else ""
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}{way_out}")
    # a subclass that holds other tensors, and has no memory of its own
    wraps = type(value) is not Tensor and (hasattr(value, "__tensor_flatten__") or isinstance(value, MaskedTensor))
    if value.layout == torch.strided and value.dtype in DTYPES and not (value.is_nested or value.is_neg() or wraps):
        return value
    if value.is_nested:
        kind, way_out = "nested", "pad the samples to one shape: torch.nested.to_padded_tensor"
    elif value.is_quantized:
        kind, way_out = "quantized", "pass .dequantize()"
    elif value.layout != torch.strided:
        kind, way_out = str(value.layout), "pass .to_dense()"
    elif value.is_complex():
        kind, way_out = str(value.dtype), "pass its parts as channels: torch.view_as_real"
    elif wraps:
        kind, way_out = f"a {type(value).__name__}", "pass the tensor that it wraps, .to_local() of a DTensor"
        if isinstance(value, MaskedTensor):
            way_out = "pass .to_tensor(value), with NaN for missing labels"
    elif value.dtype in DTYPES:
        kind, way_out = "a negated view", "pass .resolve_neg()"
    else:
        kind, way_out = str(value.dtype), "pass .float()"
    raise TypeError(f"{name} must be a dense tensor of real numbers, got {kind}; {way_out}")


def is_compiling() -> bool:
    """Whether code is traced or exported in this thread: torch's own answer is that of all threads together."""
    # Dynamo compiles the first call to True; torch.export runs this code, under a mode of fake tensors
    return torch.compiler.is_dynamo_compiling() or (
        torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0
    )


def is_transformed() -> bool:
    """Whether this code runs inside a ``torch.func`` transform, where tensors are wrappers without memory."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def is_recorded() -> bool:
    """Whether ``torch.jit.trace`` or ``make_fx`` records what torch does: what NumPy or Triton writes, they miss."""
    return torch._C._is_tracing() or get_proxy_mode() is not None


def is_readable(values: Tensor) -> bool:
    """Whether values can be read at once: not on a GPU, nor fake, traced or transformed by ``torch.func``."""
    return values.is_cpu and not (is_compiling() or is_fake(values) or is_transformed() or is_recorded())


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether this holds values in order: a list, a tuple, an array or tensor of one axis; not a set, nor a string."""
    is_sequence = isinstance(value, (Sequence, np.ndarray, Tensor)) and not isinstance(value, str)
    return is_sequence and getattr(value, "ndim", 1) == 1


def as_number(value: object) -> float | None:
    """``value`` as a Python int or float, or ``None`` if it is not one real number; strings are never parsed."""
    if type(value) is float:
        return value
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        value = None if value.ndim or (isinstance(value, Tensor) and value.is_meta) else value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def shown(value: object) -> str:
    """``value`` for an error message: abbreviated, and without reading what a tensor holds."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim:
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return _SHORT.repr(value)


_LARGEST = sys.float_info.max  # kept under a name, since torch 2.6 cannot compile sys.float_info
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlist = _SHORT.maxtuple = 8


def _within(number: float, low: float, high: float, above: bool = False, below: bool = False) -> bool:
    """Whether a number is finite and in the interval; ``above`` and ``below`` exclude its ends."""
    fits = (low < number if above else low <= number) and (number < high if below else number <= high)
    return fits and abs(number) <= _LARGEST  # Python's whole numbers have no limit


def _interval(low: float, high: float, above: bool, below: bool) -> str:
    """The interval in words: `` in [0, 1)``, `` above 0``, `` of at least 1``."""
    if math.isfinite(low) and math.isfinite(high):
        return f" in {'(' if above else '['}{low}, {high}{')' if below else ']'}"
    if math.isfinite(low):
        return f" {'above' if above else 'of at least'} {low}"
    return f" {'below' if below else 'of at most'} {high}" if math.isfinite(high) else ""
