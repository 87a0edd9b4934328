"""The commands, ``mixcollate demo | compare | preview | bench | env``, and what only they need."""


class Refusal(Exception):
    """What the user asked for cannot be done: said in one line, without a traceback, with exit status 2."""
