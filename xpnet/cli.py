"""The command line: `xpnet doctor` tells what can be used here, and what to do about the rest."""

import argparse
import errno
import io
import os
import platform
import sys
from contextlib import suppress

from xpnet.backends import backend, examine
from xpnet.errors import BackendError, CheckpointError, DataError
from xpnet.training.interrupt import let_go
from xpnet.version import __version__

INTERRUPTED, LEFT = 128 + 2, 128 + 13
"""The status after Ctrl-C, and of a program whose reader has left, as a shell reports SIGINT and SIGPIPE."""
GONE = (errno.EPIPE, errno.EINVAL) if os.name == "nt" else (errno.EPIPE,)
"""How a system says that a reader has left."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status: 1 if a check fails, 2 if something cannot be used, read or written."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: not every encoding has a θ
    try:
        try:
            return command(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt as pressed:
        let_go(pressed)
        return INTERRUPTED
    except OSError as error:
        return unwritten(error)


def unwritten(error: OSError) -> int:
    """Say that there is nowhere to print, but for a reader that has left; let Python's own end be silent about it."""
    left = error.errno in GONE
    if not left:
        with suppress(OSError):
            print(f"xpnet: {error}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return LEFT if left else 2


def command(arguments: list[str] | None) -> int:
    """Read the arguments and run what they ask for."""
    parser = argparse.ArgumentParser(prog="xpnet", description="Neural networks on NumPy, CuPy, PyTorch and JAX.")
    parser.add_argument("--version", action="version", version=f"xpnet {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("doctor", help="say which backends can be used here").set_defaults(run=doctor)
    check = commands.add_parser("selfcheck", help="compare a backend with NumPy and with itself")
    check.add_argument(
        "--backend",
        default=os.environ.get("XPNET_BACKEND") or "auto",
        help="auto, numpy, cupy, torch, jax or strict, perhaps with a device; left out, XPNET_BACKEND's, or auto",
    )
    check.add_argument("--json", metavar="PATH", help="write what was found here")
    check.add_argument("--quick", action="store_true", help="leave out the long checks and MNIST")
    check.add_argument("--table", nargs="+", metavar="PATH", help="only print the README's table of saved results")
    check.set_defaults(run=selfcheck)
    page = commands.add_parser("play", help="open a page on which a network learns before one's eyes")
    page.add_argument("--port", type=int, default=0, help="where to listen; left out, a free port")
    page.add_argument("--no-browser", dest="browser", action="store_false", help="only print the address")
    page.add_argument("--backend", default=check.get_default("backend"), help="what it begins on, as for selfcheck")
    page.set_defaults(run=play)
    chosen = vars(parser.parse_args(arguments))
    return int(chosen.pop("run")(**chosen))


def doctor() -> int:
    """Print every backend: usable or not, version, devices, and the remedy where it is not usable."""
    from xpnet.world import mpi

    ranks = mpi.examine()
    if ranks.rank:  # the first of several speaks for all
        return 0
    print(f"xpnet {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    for report in examine():
        state = "usable" if report.problem is None else "not usable"
        print(f"{report.library:7} {report.version or '-':12} {state:11} {', '.join(report.devices) or report.problem}")
        for line in report.details:
            print(f"{'':8}{line}")
    state = "usable" if ranks.problem is None else "not usable"
    print(f"{'mpi':7} {ranks.version or '-':12} {state:11} {ranks.problem or ranks.line}")
    try:
        chosen = backend()
    except (Exception, SystemExit) as error:  # a broken library raises what it likes
        print(f"\nXPNET_BACKEND cannot be used: {error}")
        return 1
    print(f"\nused by default: {chosen.name} on {chosen.device}, {chosen.reason}")
    return 0


def selfcheck(backend: str, json: str | None, quick: bool, table: list[str] | None) -> int:
    """Compare a backend with NumPy and with itself; 0 if all is well, 1 if a check fails, 2 if it cannot be used."""
    from xpnet import selfcheck as checks

    try:
        if table:
            print(checks.table(table))
            return 0
        if json is not None:
            checks.reserve(json)  # before the checks, which take minutes
        result = checks.run(backend, quick)
        if json is not None:
            checks.save(result, json)
    except (BackendError, CheckpointError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{result['backend']} on {result['device']}: {checks.tally(result['checks'])}", end=", ")
    print(f"{result['seconds']} s, sources {result['sources']}")
    return 0 if result["passed"] else 1


def play(port: int, browser: bool, backend: str) -> int:
    """Serve the playground until Ctrl-C; 0 then, 2 if it cannot be served."""
    from xpnet.play import play as serve

    return serve(port, browser, backend)


if __name__ == "__main__":
    sys.exit(main())
