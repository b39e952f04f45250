"""Run a program on the stand-in: `python -m standin -m xpnet selfcheck --backend cupy`, `python -m standin FILE`."""

import runpy
import sys

import standin
from standin import build, kernels

if __name__ == "__main__":
    words = sys.argv[1:]
    if not words:
        sys.exit("usage: python -m standin (-m MODULE | SCRIPT) [ARGUMENTS]")
    try:
        standin.install()
    except build.MissingError as problem:
        sys.exit(str(problem))
    status = 0
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    problems = standin.misuses() + kernels.verdicts()
    for problem in problems:
        print(f"stand-in: {problem}", file=sys.stderr)
    sys.exit(status or bool(problems))
