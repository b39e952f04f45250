"""The playground's server: a page, and a websocket on which a session of its own is told what to do, and tells.

Who may speak to it: whoever knows the address, which holds a random token, on this machine. A request must name the
server as its host (else a stranger's web site could come in under a name that it lets point here), and a websocket must
come from the server's own page. Nothing is read from the disk but the files of the page, nothing is written, and
nothing that is sent is run or taken for a name: settings are compared with closed lists.
"""

import asyncio
import hmac
import json
import socket
from contextlib import suppress
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from xpnet.errors import DataError
from xpnet.play.session import Message, Session
from xpnet.play.settings import CHOICES, DEFAULTS, EXTENT, LIMITS, MOST_LAYERS, MOST_POINTS, MOST_SEED, MOST_UNITS

MOST_SESSIONS, MOST_CONNECTIONS, MOST_BYTES, MOST_HEADERS = 8, 64, 2**16, 2**14
"""Pages that train at a time, connections, bytes of a message, bytes of a request."""

PATIENCE = 5.0
"""Seconds for which the end of a session is waited at the end: its thread ends after the epoch under way."""

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

SEALS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer: the page loads nothing from elsewhere, is framed by nobody, and keeps its address to itself."""

TRY_AGAIN = 1013
"""What a websocket is closed with where there are enough."""


class Door:
    """Lets in who names the right host, token and origin, and hands on the path without the token."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self.app, self.token = app, token.encode()
        self.hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token, _, rest = scope["path"].removeprefix("/").partition("/")
        problem = self.problem(scope, token)
        if problem is None:
            await self.app({**scope, "path": f"/{rest}", "raw_path": None, "root_path": ""}, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(f"{problem}\n", status_code=403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": problem})

    def problem(self, scope: Scope, token: str) -> str | None:
        """Return why a request is refused, None if it is not."""
        given = {name: [v for n, v in scope["headers"] if n == name] for name in (b"host", b"origin")}
        if len(given[b"host"]) != 1 or given[b"host"][0] not in self.hosts:
            return "this server answers to 127.0.0.1 and localhost alone, at its own port"
        if not hmac.compare_digest(token.encode(errors="replace"), self.token):
            return "the address is not complete: open the one that `xpnet play` has printed, with its token"
        if scope["type"] == "websocket" and given[b"origin"] != [b"http://" + given[b"host"][0]]:
            return "only the playground's own page may connect"
        return None


class Outlet:
    """Messages on their way to a page: of each kind the newest, so that a slow page misses some and never lags."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}
        self._loop, self._some = asyncio.get_running_loop(), asyncio.Event()

    def put(self, message: Message) -> None:
        """Take a message, from whatever thread; once the server has ended nobody waits for it."""
        text = json.dumps(message, allow_nan=False, separators=(",", ":"))
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._keep, message["kind"], text)

    def _keep(self, kind: str, text: str) -> None:
        self._waiting.pop(kind, None)
        self._waiting[kind] = text
        self._some.set()

    async def send(self, page: WebSocket) -> None:
        """Send what comes, for ever."""
        while True:
            await self._some.wait()
            while self._waiting:
                await page.send_text(self._waiting.pop(next(iter(self._waiting))))
            self._some.clear()


class Playground:
    """The page and its sessions."""

    def __init__(self, backend: str) -> None:
        self.backend, self.sessions = backend, set[Session]()
        self.files = {one.name: one.read_bytes() for one in files("xpnet.play").joinpath("page").iterdir()}

    def app(self) -> Starlette:
        """Return the application."""
        page = [Route(path, self.page, methods=["GET"]) for path in ("/", "/{name}")]
        app = Starlette(routes=[*page, WebSocketRoute("/live", self.live)])
        app.router.redirect_slashes = False  # an answer would go without the token
        return app

    async def page(self, request: Request) -> Response:
        """Answer with one of the page's files, all of which are in memory."""
        name = request.path_params.get("name", "index.html")
        if name not in self.files:
            return PlainTextResponse("there is no such file\n", status_code=404)
        seals = {header: value.format(host=request.headers["host"]) for header, value in SEALS.items()}
        return Response(self.files[name], media_type=TYPES[name.rpartition(".")[2]], headers=seals)

    async def live(self, page: WebSocket) -> None:
        """Hold a session for as long as a page is there."""
        await page.accept()
        self.sessions = {session for session in self.sessions if session.alive()}
        if len(self.sessions) >= MOST_SESSIONS:
            await page.close(TRY_AGAIN, f"{MOST_SESSIONS} pages are open already: close one")
            return
        outlet = Outlet()
        outlet.put(self.welcome())
        session = Session(outlet.put, (self.backend,))
        self.sessions.add(session)
        session.start()
        sending = asyncio.create_task(outlet.send(page))
        try:
            while True:
                hear(await page.receive(), session, outlet)
        except WebSocketDisconnect:
            pass
        finally:
            sending.cancel()
            session.close()

    def welcome(self) -> Message:
        """Return what a page needs to know first: what there is to choose from."""
        defaults = {data: asdict(settings) | {"backend": self.backend} for data, settings in DEFAULTS.items()}
        limits = {"layers": MOST_LAYERS, "units": MOST_UNITS, "points": MOST_POINTS, "seed": MOST_SEED, **LIMITS}
        return {"kind": "welcome", "choices": CHOICES, "defaults": defaults, "limits": limits, "extent": EXTENT}


def hear(event: Any, session: Session, outlet: Outlet) -> None:
    """Do what a message says; one that cannot be done is answered by a line. WebSocketDisconnect at the end."""
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
    try:
        session.order(json.loads(event.get("text") or "", parse_constant=refuse))
    except (ValueError, RecursionError) as error:
        line = str(error) if isinstance(error, DataError) else "a message must be JSON text"
        outlet.put({"kind": "error", "text": line})


def refuse(word: str) -> None:
    """Refuse NaN and Infinity, which JSON has not."""
    raise ValueError(word)


def serve(listening: socket.socket, token: str, backend: str) -> None:
    """Serve on a socket that listens, until Ctrl-C, which raises KeyboardInterrupt when all sessions have ended."""
    playground = Playground(backend)
    config = uvicorn.Config(
        Door(playground.app(), listening.getsockname()[1], token),
        log_level="warning",
        access_log=False,
        lifespan="off",
        http="h11",
        ws="websockets-sansio",
        ws_max_size=MOST_BYTES,
        ws_per_message_deflate=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEADERS,
        timeout_graceful_shutdown=2,
        proxy_headers=False,
        server_header=False,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        for session in playground.sessions:
            session.close()
            session.alive(PATIENCE)
