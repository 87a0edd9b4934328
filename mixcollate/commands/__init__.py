"""The commands, ``mixcollate demo | compare | preview | bench | env``, and what only they need."""
