"""The commands ``mixcollate demo | compare | preview | bench | env``, and the modules that only they use."""

from collections.abc import Iterator
from contextlib import contextmanager


class Refusal(Exception):
    """The user asked for something that cannot be done: reported in one line, with exit status 2, without traceback."""


@contextmanager
def refusing(asked: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into a :class:`Refusal`; wrap only code that fails because of what the user asked."""
    try:
        yield
    except kinds as error:
        raise Refusal(f"{asked}: {getattr(error, 'strerror', None) or error}") from error
