"""The commands, ``mixcollate demo | preview | bench | env``, and what only they need."""
