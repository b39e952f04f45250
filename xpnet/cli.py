"""The command line: `xpnet doctor` tells what can be used here, and what to do about the rest."""

import argparse
import platform
import sys
from importlib.metadata import version

from xpnet.backends import backend, examine
from xpnet.errors import BackendError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="xpnet", description="Neural networks on NumPy, CuPy, PyTorch and JAX.")
    parser.add_argument("--version", action="version", version=f"xpnet {version('xpnet')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("doctor", help="say which backends can be used here").set_defaults(run=doctor)
    return int(parser.parse_args(arguments).run())


def doctor() -> int:
    """Print every backend: usable or not, version, devices, and the remedy where it is not usable."""
    print(f"xpnet {version('xpnet')}, Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    for report in examine():
        state = "usable" if report.problem is None else "not usable"
        print(f"{report.library:7} {report.version or '-':12} {state:11} {', '.join(report.devices) or report.problem}")
    try:
        chosen = backend()
    except BackendError as error:
        print(f"\nXPNET_BACKEND cannot be used: {error}")
        return 1
    print(f"\nused by default: {chosen.name} on {chosen.device}, {chosen.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
