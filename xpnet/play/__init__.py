"""The playground, `xpnet play`: a page on which a network learns before one's eyes. `pip install 'xpnet[play]'`.

    settings   what can be chosen, in closed lists      recipe   from settings to data and a model; code writes it down
    session    a thread that trains                     pictures what is drawn of the model
    server     the page, and who may speak to it        page/    HTML, CSS and JavaScript, as they are: nothing is built

Why so: the page trains a real `xn.Model` through `fit`, on any backend, so what one sees is what the copied code does,
to the last bit; a page that learned in JavaScript would be another network. It stands on Starlette, uvicorn and
websockets, which are small, well kept and pure Python. A notebook's widgets (marimo, anywidget) would need a notebook
with its server, which is made to run code that is sent to it; this one runs none. A websocket rather than requests:
pictures come as they are ready, and when the page goes, its training ends.
"""

import secrets
import socket
import sys
import webbrowser
from importlib.util import find_spec
from threading import Thread

from xpnet.backends import backend as find_backend
from xpnet.errors import BackendError
from xpnet.training.interrupt import let_go

NEEDED = ("starlette", "uvicorn", "websockets")
LOOPBACK = "127.0.0.1"


def play(port: int = 0, browser: bool = True, backend: str = "auto") -> int:
    """Serve the playground until Ctrl-C, on a free port if it is 0; return 0, or 2 if that cannot be."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return refuse(f"the playground needs {' and '.join(missing)}: pip install 'xpnet[play]'")
    try:
        chosen = find_backend(backend)
    except BackendError as error:
        return refuse(str(error))
    if not 0 <= port < 2**16:
        return refuse(f"--port must be in 0..65535, got {port}")
    try:
        listening = socket.create_server((LOOPBACK, port), backlog=64)
    except OSError as error:
        why = f"cannot listen on port {port} of {LOOPBACK} ({str(error.strerror).partition(' (while')[0]})"
        return refuse(f"{why}: leave --port out to get a free one")
    try:
        with listening:
            token = secrets.token_urlsafe(24)
            address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/{token}/"
            print(f"{address}\nThe playground is at this address, on this machine alone; Ctrl-C ends it.", flush=True)
            if browser:  # it may take its time: its page waits until the server is there
                Thread(target=webbrowser.open, args=(address,), daemon=True).start()
            from xpnet.play.server import serve

            serve(listening, token, chosen.name if backend == "auto" else backend)
    except KeyboardInterrupt as pressed:
        let_go(pressed)
    return 0


def refuse(line: str) -> int:
    """Say why not, and return the status for that."""
    print(line, file=sys.stderr)
    return 2
