"""These need the extra ``integrations``: `make test-integrations` asks for them by name, and nothing else does."""

import os
import runpy
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = any("integrations" in str(argument) for argument in config.args)
    return None if asked else True


@pytest.fixture(scope="module")
def example(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the example of a test's module defines, which has its name."""
    name = request.module.__name__.rpartition(".test_")[2]
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))
