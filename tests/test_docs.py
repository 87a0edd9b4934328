"""The Python of the pages in docs/ runs, page by page, block after block, as a reader would paste it."""

import ast
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import mixcollate
from mixcollate import methods

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.name != "others.md")  # which is tests/integrations'


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_code_of_a_page_runs(page):
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 10, (64,))
    weights = torch.randn(3 * 32 * 32, 10, requires_grad=True)
    reader = {
        "dataset": TensorDataset(images, labels),
        "model": lambda x: x.float().flatten(1) @ weights,
        "device": "cpu",
        "epochs": 1,
    }
    for block in re.findall(r"```python.*?\n(.*?)```", page.read_text(), re.DOTALL):
        if block.startswith("--8<--"):  # a whole script, which has a test of its own
            assert (DOCS.parent / block.split('"')[1]).exists()
            continue
        reader |= {"images": images / 255, "labels": labels}
        exec(block, reader)


def test_every_method_has_a_page_and_a_picture():
    for name in methods.ALL:
        assert (DOCS / "methods" / f"{name.lower()}.md").exists(), name
        assert (DOCS / "images" / f"{name.lower()}.jpg").stat().st_size < 200_000, name


def test_the_reference_has_everything_that_is_exported():
    reference = (DOCS / "reference.md").read_text()
    exported = [name for name, value in vars(mixcollate).items() if not name.startswith("_") and callable(value)]
    assert len(exported) > 20
    for name in exported:
        assert f"::: mixcollate.{name}\n" in reference, name


def test_every_page_is_in_the_menu():
    menu = (DOCS.parent / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert str(page.relative_to(DOCS)) in menu, page


OF_OTHERS = (
    "AssertionError",
    "Can only",
    "EOFError",
    "Failed to",
    "Input",
    "KeyError",
    "MixupCollate.__",
    "Skip",
    "The",
    "conv2d",
    "result",
)
"""How the messages of other libraries in docs/troubleshooting.md start."""


def test_troubleshooting_quotes_messages_as_they_are():
    """Each fixed part of a quoted message, but for its first word, which may be a variable."""
    strings = []
    for path in Path(mixcollate.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            values = node.values if isinstance(node, ast.JoinedStr) else [node]
            strings.append("{}".join(str(value.value) for value in values if isinstance(value, ast.Constant)))
    messages = "\n".join(strings)
    headings = re.findall(r"^`+(.*?)`+(?:,.*| in .*)?$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    ours = [heading for heading in headings if not heading.startswith(OF_OTHERS)]
    assert len(ours) > 12
    for heading in ours:
        for fixed in re.split(r"\.\.\.|\d+|got \S+|\[?'\w+'\]?", heading):
            words = fixed.strip(" ,()").partition(" ")[2]
            assert len(words) < 12 or words in messages, heading
