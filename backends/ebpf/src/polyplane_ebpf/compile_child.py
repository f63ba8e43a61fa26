"""Runs in a process of its own, with the system's interpreter, which has bcc: compile standard input, print bytecode as JSON.

Standard library and bcc only. It loads nothing into the kernel: the source asks bcc for no maps.
"""

import base64
import json
import os
import sys


def main() -> None:
    """Read ``{"source": …, "flags": […], "functions": […], "tree": …}``, write ``{"compiler": …, "functions": {name: base64}}``."""
    request = json.load(sys.stdin)
    os.environ["BCC_KERNEL_SOURCE"] = request["tree"]
    try:
        import bcc  # noqa: PLC0415  # bcc reads the variable when it is imported
    except ImportError as error:
        sys.exit(f"no bcc: {error}")
    # bcc and clang write what they have to say to standard error
    program = bcc.BPF(text=request["source"], cflags=request["flags"])
    code = {name: base64.b64encode(program.dump_func(name.encode())).decode("ascii") for name in request["functions"]}
    json.dump({"compiler": f"bcc {bcc.__version__}", "functions": code}, sys.stdout)


if __name__ == "__main__":
    main()
