"""The commands, ``mixcollate demo | compare | preview | bench | env``, and what only they need."""

from collections.abc import Iterator
from contextlib import contextmanager


class Refusal(Exception):
    """What the user asked for cannot be done: said in one line, without a traceback, with exit status 2."""


@contextmanager
def refusing(asked: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds are what comes of what was asked, not of a bug: only what tries just that belongs here."""
    try:
        yield
    except kinds as error:
        raise Refusal(f"{asked}: {getattr(error, 'strerror', None) or error}") from error
