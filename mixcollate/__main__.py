"""``python -m mixcollate``: the same as the command ``mixcollate``."""

from mixcollate.commands.cli import main

if __name__ == "__main__":
    main()
