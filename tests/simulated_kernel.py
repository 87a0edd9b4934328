"""A kernel that is only asked for, never run: for tests of what a launch keeps."""


class Kernel:
    """Stands for Triton's, and for what it compiles: how often it is asked for what is not compiled yet."""

    compiled, function, packed_metadata = 0, None, None

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *arguments, **options):
        self.compiled += 1
        return self

    def run(self, *arguments):
        pass
