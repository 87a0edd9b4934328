"""Compile kernels for an H200 without one, as a launch with given arguments would.

``python -m tests.ahead_of_time FILE`` reads launches from a pickle and reports those that the front end refuses.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import torch
import triton
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend

TARGET = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}


def compiling(module, *arguments, options=("-W", "ignore"), **variables):
    """The output of a test module, run in a process in which Triton compiles; here it may be interpreting."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    root = Path(__file__).parent.parent
    command = [sys.executable, *options, "-m", module, *arguments]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def source_of(kernel, arguments, constants):
    """The source that such a launch compiles; pointers and floats are given by type, integers by value."""
    signature, constexprs, attributes = {}, {}, {}
    for place, (name, value) in enumerate(zip(kernel.arg_names, [*arguments, *constants], strict=True)):
        specialised = not kernel.params[place].do_not_specialize
        if place >= len(arguments) or (isinstance(value, int) and value == 1 and specialised):
            signature[name] = "constexpr"
            constexprs[(place,)] = value
        else:
            signature[name] = value if isinstance(value, str) else "i32"
            if isinstance(value, str) or (value % 16 == 0 and specialised):
                attributes[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=attributes)


def front_end(source):
    """Run Triton's front end, which refuses some code that the interpreter runs."""
    backend, context = make_backend(TARGET), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    options = backend.parse_options({})
    return source.make_ir(
        TARGET, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )


def arguments_of(tensors, numbers):
    """The arguments of a launch, as ``source_of`` takes them."""
    return [f"*{TYPES[t.dtype]}" for t in tensors] + ["fp32" if isinstance(n, float) else n for n in numbers]


def main(path):
    from mixcollate.kernels import fused, fused_targets

    refused = 0
    for name, arguments, constants in pickle.loads(Path(path).read_bytes()):
        try:
            front_end(source_of(getattr(fused, name, None) or getattr(fused_targets, name), arguments, constants))
        except triton.CompilationError as error:
            refused += 1
            print(f"{name} {arguments} {constants}:\n{error}\n")
    return f"{refused} refused" if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
