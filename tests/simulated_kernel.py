"""A kernel that is never run, for tests of what a launch caches."""


class Kernel:
    """Replaces both a Triton kernel and its compiled form; counts the compilations."""

    compiled, function, packed_metadata = 0, None, None

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *arguments, **options):
        self.compiled += 1
        return self

    def run(self, *arguments):
        pass
