"""The ``race`` fixture, which times rivals in turns on one thread, each as a row of pytest-benchmark."""

import collections
import functools
import inspect
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.common import DEADLINE, Clock, Rivals, devices, interleaved
from mixcollate.kernels import host

torch.set_num_threads(1)
torch.set_flush_denormal(True)  # a batch that is mixed in place many times ends in denormals, which are slow on CPUs

CLOCK = Clock()
RACES: dict[Any, dict[str, Any]] = {}
SKIPPED: list[dict[str, str]] = []


@pytest.fixture(params=devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def race(request: pytest.FixtureRequest, benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Time all rivals of a case in turns, once, and report the one of this test."""
    monkeypatch.setattr(host, "loops", lambda: None)  # so that rows mean the same whether Numba is installed or not

    def report(
        rivals: Callable[[], Rivals],
        rival: str,
        *,
        case: str,
        device: torch.device,
        ours: str = "mixcollate",
        images: int = 0,
        moved: int = 0,
        clock: str = "call",
        goals: dict[str, tuple[str, list[str]]] | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        if clock == "device" and device.type == "cpu":
            benchmark.skipped = True
            pytest.skip("on the CPU, a call's time is the device's time")
        question = inspect.getdoc(request.module).partition("\n")[0]
        name = request.module.__name__.rpartition(".")[2].removeprefix("bench_")
        key = (name, case, device.type, clock)
        if key not in RACES and time.time() > DEADLINE:
            RACES[key] = collections.defaultdict(lambda: "there was no time left")
        if key not in RACES:
            RACES[key] = _run(rivals(), device, clock, measured=benchmark.enabled)
        outcome = RACES[key][rival]
        if isinstance(outcome, str):
            benchmark.skipped = True
            SKIPPED.append({"file": name, "case": case, "name": rival, "reason": outcome})
            pytest.skip(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        CLOCK.rounds = iter(outcome)
        benchmark.group = f"{name}: {case}, {device.type}, {clock}"
        benchmark.pedantic(CLOCK.advance, rounds=max(len(outcome), 1))
        benchmark.extra_info.update(
            question=question, file=name, case=case, rival=rival, device=device.type, clock=clock, ours=ours,
            images=images, bytes=moved, **(info or {}),
            goals={code: against for code, (row, against) in (goals or {}).items() if row == rival},
        )  # fmt: skip
        if outcome:
            median = benchmark.stats.stats.median
            benchmark.extra_info.update(images_per_second=images / median, gigabytes_per_second=moved / median / 1e9)

    return report


def _run(rivals: Rivals, device: torch.device, clock: str, *, measured: bool) -> dict[str, Any]:
    reasons = {name: run for name, run in rivals.items() if isinstance(run, str)}
    runs = {name: run for name, run in rivals.items() if not isinstance(run, str)}
    if measured:
        return {**reasons, **interleaved(runs, device, ahead=clock == "device" and device.type == "cuda")}
    for run in runs.values():
        run()
    return {**reasons, **{name: [] for name in runs}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "race" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["threads"] = torch.get_num_threads()
    machine_info["python"] = platform.python_version()
    machine_info["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["skipped"] = SKIPPED


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Write the results so far to ``BENCH_JSON``, like pytest-benchmark, so that they survive if this is killed."""
    session: Any = item.config._benchmarksession  # type: ignore[attr-defined]
    if "BENCH_JSON" not in os.environ or not session.benchmarks:
        return
    path, machine = Path(os.environ["BENCH_JSON"]), _machine_info(session)
    options = {"benchmarks": session.benchmarks, "include_data": False, "machine_info": machine, "commit_info": {}}
    raw = item.config.hook.pytest_benchmark_generate_json(config=item.config, **options)
    pytest_benchmark_update_json(item.config, session.benchmarks, raw)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(raw, default=str), encoding="utf-8")  # parameters may be dtypes
    unfinished.replace(path)


@functools.cache
def _machine_info(session: Any) -> Any:
    return session.get_machine_info()
