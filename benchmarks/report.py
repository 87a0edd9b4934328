"""Condense what pytest-benchmark measured into results, and make the documents' tables and plots from those.

    python -m benchmarks.report condense RAW.json ...   # writes benchmarks/results/<cpu or gpu>-<commit>.json
                                                        # (--out: elsewhere; --plot: and pictures)
    python -m benchmarks.report documents               # rewrites the tables of README.md and the plots in images/
    python -m benchmarks.report show RESULTS.json       # each case against the fastest other, and the goals
    python -m benchmarks.report compare OLD.json NEW.json   # ratios only; status 1 if ours grew against the others

In a document, ``<!-- results:goals-cpu -->`` … ``<!-- /results -->`` encloses a table: ``goals``, ``missed`` (those not
reached), ``machine``, ``overview`` or the name of a benchmark file, then ``cpu`` or ``gpu``;
``results:peers-cpu:MixUp`` takes only cases that begin so.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.plots import pictures, plot
from benchmarks.results import RESULTS, ROOT, condense, current_commit, latest, write
from benchmarks.tables import compare, filled, show

DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")


def write_documents() -> list[Path]:
    """Rewrite the tables of the documents and the plots; return the files that changed."""
    written = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            path.write_text(filled(text), encoding="utf-8")
            written.append(path)
    for kind in ("cpu", "gpu"):
        found = latest(kind)
        if found is not None:
            written += plot(*found)
    return written


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.report", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("condense", help="raw files of pytest-benchmark to a file in benchmarks/results")
    command.add_argument("raw", nargs="+", type=Path)
    command.add_argument("--commit", default=None, help="what was measured; default: the checked-out commit")
    command.add_argument("--out", type=Path, default=RESULTS, help="folder")
    command.add_argument("--plot", action="store_true", help="draw PNGs beside the file")
    commands.add_parser("documents", help="rewrite the tables and plots of the documents")
    commands.add_parser("show", help="print results").add_argument("file", type=Path)
    command = commands.add_parser("compare", help="ratios of two results")
    command.add_argument("old", type=Path)
    command.add_argument("new", type=Path)
    command.add_argument("--tolerance", type=float, default=1.25)
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.command == "condense":
        raws = [json.loads(path.read_text(encoding="utf-8")) for path in options.raw]
        path = write(condense(raws, options.commit or current_commit()), options.out)
        print(f"results: {path}")
        results = json.loads(path.read_text(encoding="utf-8"))
        print(show(results))
        if options.plot:
            print(pictures(path, results))
    elif options.command == "documents":
        print(*write_documents(), sep="\n")
    elif options.command == "show":
        print(show(json.loads(options.file.read_text(encoding="utf-8"))))
    else:
        old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (options.old, options.new))
        text, grown = compare(old, new, options.tolerance)
        print(text)
        return int(grown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
