"""The playground as its user starts it: `xpnet play` in a process of its own, and the address it prints."""

import signal
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import urlsplit

SECONDS = 30


class Started:
    """A running playground."""

    def __init__(self, process):
        self.process = process
        self.address, self.said = (process.stdout.readline().strip() for _ in range(2))
        parts = urlsplit(self.address)
        self.host, self.port, self.path = parts.netloc, parts.port, parts.path

    def interrupt(self):
        """Press Ctrl-C; return the exit status and what else was printed."""
        self.process.send_signal(signal.SIGINT)
        rest = self.process.communicate(timeout=SECONDS)[0]
        return self.process.returncode, rest


@contextmanager
def playground(*words):
    """Run the command without a browser, on a free port, on NumPy."""
    command = [sys.executable, "-m", "xpnet", "play", "--no-browser", "--backend", "numpy", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield Started(process)
    finally:
        process.kill()
        process.communicate()
