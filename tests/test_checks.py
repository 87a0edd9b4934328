"""The checks by kind: what they take, and what they say of the rest."""

import fractions
import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.masked import masked_tensor
from torch.testing._internal.two_tensor import TwoTensor

import mixcollate as mc
from mixcollate import checks
from mixcollate.schedules import ramp, until, value_in_epoch

NO_NUMBERS = ["1", None, [0.5], (1,), 1j, torch.tensor([1]), torch.tensor(1j), np.array([1.0]), object, {}]
NO_NUMBERS += [True, np.False_, torch.tensor(True), torch.tensor(1.0, device="meta")]


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.5), np.int8(1), np.array(0.25), torch.tensor(0.5)])
def test_numbers(value):
    for check in (checks.check_number, checks.check_probability, checks.check_not_negative):
        checked = check("p", value)
        assert checked == float(value)
        assert type(checked) in (int, float)
    assert checks.check_number("p", fractions.Fraction(1, 2)) == 0.5


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("check", [checks.check_number, checks.check_probability, checks.check_count])
def test_what_is_no_number(check, value):
    with pytest.raises(TypeError, match=r"^alpha must be .*(number|probability).*, got "):
        check("alpha", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, np.float32("nan"), torch.tensor(math.inf)])
def test_what_is_not_finite(value):
    for check in (checks.check_number, checks.check_probability, checks.check_positive, checks.check_not_negative):
        with pytest.raises(ValueError, match=r"^alpha must be .*, got (nan|-?inf|1000|tensor|np.float32\(nan)"):
            check("alpha", value)


def test_bounds_belong_to_the_interval_or_not():
    rules = [
        ({"low": 0, "high": 1}, [0, 1], [-0.1, 1.1], r"finite number in \[0, 1\]"),
        ({"low": 0, "high": 1, "below": True}, [0, 0.9], [-0.1, 1], r"finite number in \[0, 1\)"),
        ({"low": 0, "high": 1, "above": True, "below": True}, [0.1], [0, 1], r"finite number in \(0, 1\)"),
        ({"low": 0, "above": True}, [0.1], [0], "finite number above 0"),
        ({"low": 0}, [0], [-1], "finite number of at least 0"),
        ({"high": 2}, [2, -9], [3], "finite number of at most 2"),
        ({"high": 2, "below": True}, [1], [2], "finite number below 2"),
        ({}, [-1e9, 1e9], [math.nan], "finite number,"),
    ]
    for rule, taken, refused, words in rules:
        for value in taken:
            assert checks.check_number("x", value, **rule) == value
        for value in refused:
            with pytest.raises(ValueError, match=f"^x must be a {words}.* got {value}$"):
                checks.check_number("x", value, **rule)
    with pytest.raises(ValueError, match=r"got 0; drop the transform or use p=0 to turn mixing off$"):
        checks.check_positive("alpha", 0)


def test_counts():
    for value in (1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1)):
        assert checks.check_count("holes", value) == 1
        assert type(checks.check_count("holes", value)) is int
    for value in (1.0, True, np.True_, torch.tensor(True), np.float64(2), math.nan):
        with pytest.raises(TypeError, match="^holes must be a whole number of at least 1, got "):
            checks.check_count("holes", value)
    with pytest.raises(ValueError, match="^holes must be a whole number of at least 1, got 0$"):
        checks.check_count("holes", 0)
    assert checks.check_count("seed", 0, least=0, most=3) == 0
    with pytest.raises(ValueError, match="^seed must be a whole number from 0 to 3, got 4$"):
        checks.check_count("seed", 4, least=0, most=3)


def test_choices_and_flags():
    assert checks.check_choice("per", "pair", ("pair", "batch")) == "pair"
    for value in ("pairs", None, 0, ["pair"], np.array(["pair", "batch"])):
        with pytest.raises(ValueError, match="^per must be one of 'pair', 'batch', got "):
            checks.check_choice("per", value, ("pair", "batch"))
    assert checks.check_flag("inplace", np.True_) is True
    for value in ("no", None, 0, 1.0, torch.tensor(True)):
        with pytest.raises(TypeError, match="^inplace must be True or False, got "):
            checks.check_flag("inplace", value)


def test_ranges():
    for value in ((0.1, 0.8), [0.1, 0.8], np.array([0.1, 0.8]), (0, 0), (1, 1)):
        assert checks.check_range("scale", value, 0, 1) == tuple(value)
    assert checks.check_counts("count", (np.int8(1), 3)) == (1, 3)
    rule = r"^scale must be \(low, high\) with low <= high, both numbers in \[0, 1\], got "
    for value in (0.5, None, "01", (0.1,), (0.1, 0.2, 0.3), {0.1, 0.2}, ("a", "b"), (0, None), torch.eye(2)):
        with pytest.raises(TypeError, match=rule):
            checks.check_range("scale", value, 0, 1)
    for value in ((0.8, 0.1), (-0.1, 1), (0, 1.1), (math.nan, 1), (0, math.nan)):
        with pytest.raises(ValueError, match=rule):
            checks.check_range("scale", value, 0, 1)
    with pytest.raises(
        ValueError, match=r"^ratio must be \(low, high\) with low <= high, both numbers above 0, got \(0, 1\)$"
    ):
        checks.check_range("ratio", (0, 1), 0, above=True)
    with pytest.raises(ValueError, match=r"above 0, got \(1, inf\)$"):
        checks.check_range("ratio", (1, math.inf), 0, above=True)
    with pytest.raises(
        TypeError, match=r"^count must be \(low, high\) with low <= high, both whole numbers of at least 1"
    ):
        checks.check_counts("count", (1, 2.0))


def test_schedules_are_checked_when_they_are_used():
    schedule = ramp(0.8, 4)
    assert checks.check_scheduled("p", schedule, checks.check_probability) is schedule
    assert checks.check_scheduled("p", torch.tensor(1), checks.check_probability) == 1
    with pytest.raises(ValueError, match=r"^p must be a probability in \[0, 1\], got 2$"):
        checks.check_scheduled("p", 2, checks.check_probability)
    assert value_in_epoch("p", schedule, 2, checks.check_probability) == 0.4
    assert value_in_epoch("p", 0.25, 2, checks.check_probability) == 0.25
    for wrong, error in ((lambda epoch: None, TypeError), (lambda epoch: epoch, ValueError)):
        with pytest.raises(error, match=r"^p in epoch 7 must be a probability in \[0, 1\], got "):
            value_in_epoch("p", wrong, 7, checks.check_probability)
    with pytest.raises(
        ValueError, match="^p must be a function of the epoch, but raised KeyError in epoch 7: 7$"
    ) as raised:
        value_in_epoch("p", lambda epoch: {}[epoch], 7, checks.check_probability)
    assert isinstance(raised.value.__cause__, KeyError)


def test_kinds():
    for value in ({}, OrderedDict(), None):
        assert checks.check_kind("plan", value, dict, None) is value
    with pytest.raises(TypeError, match="^plan must be a dict or None, got 3$"):
        checks.check_kind("plan", 3, dict, None)


def test_the_schedules_own_values():
    assert [until(3)(epoch) for epoch in (0, 2, 3, 9)] == [1, 1, 0, 0]
    assert [ramp(0.8, 4)(epoch) for epoch in (0, 2, 4, 9)] == [0, 0.4, 0.8, 0.8]


def test_the_schedules_own_arguments():
    for call, message in [
        (lambda: ramp(0.8, 0), "^epochs must be a whole number of at least 1, got 0$"),
        (lambda: ramp(-1, 9), "^value must be a finite number of at least 0, got -1$"),
        (lambda: until(1.5), "^epoch must be a whole number of at least 0, got 1.5$"),
        (lambda: until(3, math.nan), "^value must be a finite number of at least 0, got nan$"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            call()


@pytest.mark.filterwarnings("ignore:The PyTorch API of (nested tensors|MaskedTensors)", "ignore:.*quantize")
def test_tensors():
    for dtype in checks.DTYPES:
        tensor = torch.zeros(2, 3, dtype=dtype)
        assert checks.check_tensor("images", tensor.T) is not None
    assert checks.check_tensor("images", torch.zeros(2, device="meta")).is_meta  # has no values, but a shape
    images = torch.ones(2, 2)
    for tensor, words in [
        (images.to_sparse(), r"torch.sparse_coo; pass .to_dense\(\)"),
        (torch.nested.nested_tensor([images], layout=torch.strided), "nested; pad"),
        (torch.nested.nested_tensor([images], layout=torch.jagged), "nested; pad"),
        (torch.quantize_per_tensor(images, 0.1, 0, torch.quint8), r"quantized; pass .dequantize\(\)"),
        (images.to(torch.complex64), "torch.complex64; pass its parts"),
        (images.to(torch.complex64).conj(), "torch.complex64; pass its parts"),
        (images.to(torch.float8_e4m3fn), r"torch.float8_e4m3fn; pass .float\(\)"),
        (torch._neg_view(images), r"a negated view; pass .resolve_neg\(\)"),
        (TwoTensor(images, images), r"a TwoTensor; pass the tensor that it wraps, .to_local\(\) of a DTensor"),
        (masked_tensor(images, images > 0), r"a MaskedTensor; pass .to_tensor\(value\), with NaN"),
    ]:
        with pytest.raises(TypeError, match=f"^images must be a dense tensor of real numbers, got {words}"):
            checks.check_tensor("images", tensor)
    with pytest.raises(TypeError, match="^images must be a tensor, got ndarray; convert it with torch.as_tensor$"):
        checks.check_tensor("images", np.ones(3))
    with pytest.raises(TypeError, match="^images must be a tensor, got NoneType$"):
        checks.check_tensor("images", None)


def test_messages_are_short():
    with pytest.raises(TypeError) as raised:
        checks.check_number("alpha", "a" * 10_000)
    assert len(str(raised.value)) < 200
    with pytest.raises(TypeError, match=r"got a Tensor of shape \(1000, 1000\)$"):
        checks.check_number("alpha", torch.zeros(1000, 1000))


def test_warnings_name_the_line_of_the_caller():
    """Not one of this library, nor of torch, through which transforms are called."""
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    transform = mc.MixUp(num_classes=4, alpha=ramp(1, 5))
    collate = mc.MixupCollate(num_classes=4, mean=0.5)
    calls = {
        "set_epoch was not called": lambda: transform(images, labels),
        "are they normalised": lambda: collate((images * 9, labels)).to("cpu"),
        "is left unchanged": lambda: collate.mix((images, labels, labels.float())),
    }
    for text, call in calls.items():
        with pytest.warns(UserWarning, match=text) as told:
            call()
        assert [one.filename for one in told] == [__file__]
