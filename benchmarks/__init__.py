"""One file answers one question; see ``benchmarks/README.md``."""
