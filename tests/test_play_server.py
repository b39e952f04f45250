"""Who may speak to the playground, and what it does with what it is sent; the server is started as by its user."""

import json
import re
import socket
import time
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from playing import SECONDS, playground

for needed in ("starlette", "uvicorn", "websockets"):
    pytest.importorskip(needed, reason=f"the playground's server needs {needed}, which is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402


@pytest.fixture(scope="module")
def server():
    with playground() as started:
        yield started


def ask(server, path, method="GET", **headers):
    """Return the status, headers and body of an answer."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    connection.request(method, path, headers={"Host": server.host} | {k.title(): v for k, v in headers.items()})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def live(server, path=None, origin=None, **more):
    """Open the websocket as the page does, or a little otherwise."""
    address = f"ws://{server.host}{server.path if path is None else path}live"
    origin = f"http://{server.host}" if origin is None else origin
    return connect(address, origin=origin or None, open_timeout=SECONDS, **more)


def hear(page, kind):
    """Return the next message of a kind."""
    while True:
        message = json.loads(page.recv(timeout=SECONDS))
        if message["kind"] == kind:
            return message


# The page


def test_the_page_and_its_files_are_there(server):
    status, headers, body = ask(server, server.path)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"]+)"', body)
    kinds = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
    assert named
    while named:
        name = named.pop()
        assert re.fullmatch(r"[a-z]+\.(css|js|svg)", name), name  # of this server, beside the page
        status, headers, body = ask(server, server.path + name)
        assert (status, headers["Content-Type"]) == (200, kinds[name.partition(".")[2]])
        named += re.findall(r'from "\./([^"]+)"', body)


def test_every_answer_seals_the_page(server):
    for name in ("", "play.js", "style.css", "icon.svg"):
        headers = ask(server, server.path + name)[1]
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert f"connect-src 'self' ws://{server.host};" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers


@pytest.mark.parametrize("path", ["", "/", "/nonsense/", "/nonsense/play.js", "//", "/%00/", "/%C3%A9/", "/?token="])
def test_without_the_token_nothing_is_there(server, path):
    status, _, body = ask(server, path or "/")
    assert (status, body) == (
        403,
        "the address is not complete: open the one that `xpnet play` has printed, with its token\n",
    )


def test_a_part_of_the_token_is_not_enough(server):
    token = server.path.strip("/")
    for wrong in (token[:-1], token + "A", token.swapcase(), token[::-1]):
        assert ask(server, f"/{wrong}/")[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_another_host_is_refused_whoever_it_points_at(server, host):
    status, _, body = ask(server, server.path, host=host.format(port=server.port))
    assert (status, body) == (403, "this server answers to 127.0.0.1 and localhost alone, at its own port\n")


def test_localhost_is_a_name_of_it(server):
    assert ask(server, server.path, host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "name", ["../server.py", "..%2fserver.py", "%2e%2e/server.py", "/etc/passwd", "settings.py", "index.html/", "live"]
)
def test_no_other_file_is_there(server, name):
    assert ask(server, server.path + name)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_get_is_answered(server, method):
    assert ask(server, server.path, method)[0] == 405


def test_a_request_that_is_too_long_is_refused(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ")
        with suppress(OSError):  # it has heard enough
            for _ in range(100):
                raw.sendall(b"x" * 2**14)
            assert raw.recv(1000).startswith(b"HTTP/1.1 400")


def test_it_listens_on_the_loopback_device_alone(server):
    tables = "".join(Path(f"/proc/net/{table}").read_text(encoding="utf-8") for table in ("tcp", "tcp6"))
    for line in re.findall(r"(?m)^ +\d+: .*$", tables):
        address, port = line.split()[1].split(":")
        if int(port, 16) == server.port and line.split()[3] == "0A":  # listening
            assert socket.inet_ntoa(bytes.fromhex(address)[::-1]) == "127.0.0.1"


# The websocket


def test_a_session_learns_what_it_is_told(server):
    with live(server) as page:
        welcome, data, frame = hear(page, "welcome"), hear(page, "data"), hear(page, "frame")
        assert welcome["defaults"]["spirals"] == data["settings"]
        assert (frame["epoch"], frame["running"]) == (0, False)
        page.send('{"do": "step"}')
        assert hear(page, "frame")["epoch"] == 1


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/", None),
        ("/nonsense/", None),
        (None, "http://evil.example"),
        (None, "http://127.0.0.1:1"),
        (None, "null"),
        (None, ""),
    ],
    ids=["no token", "wrong token", "another origin", "another port", "no origin's name", "no origin"],
)
def test_a_stranger_gets_no_session(server, path, origin):
    with pytest.raises(InvalidStatus) as caught, live(server, path, origin):
        pass
    assert caught.value.response.status_code == 403


def test_another_host_gets_no_session(server):
    raw = socket.create_connection(("127.0.0.1", server.port))
    address = f"ws://evil.example:{server.port}{server.path}live"
    with pytest.raises(InvalidStatus), connect(address, sock=raw, origin=f"http://evil.example:{server.port}"):
        pass


BAD = {
    "no JSON": "run",
    "nothing": "",
    "NaN": '{"do": NaN}',
    "bytes": b"\x00\xff",
    "a very long number": '{"do": ' + "1" * 10000 + "}",
    "very deep": "[" * 60000,
    "no order": '{"do": "exec", "code": "1"}',
    "half the settings": '{"do": "set", "settings": {"data": "xor"}}',
    "half a character": '{"do": "\\ud800"}',
}


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_cannot_be_done_is_answered_in_a_line(server, name):
    with live(server) as page:
        hear(page, "frame")
        page.send(BAD[name])
        text = hear(page, "error")["text"]
        assert text == "a message must be JSON text" or text.startswith(("an order must be", "settings must be"))
        assert "\n" not in text
        page.send('{"do": "step"}')
        assert hear(page, "frame")["epoch"] == 1


def test_a_message_that_is_too_large_ends_the_session(server):
    with live(server) as page:
        page.send("x" * (2**16 + 1))
        with pytest.raises(ConnectionClosed) as caught:
            hear(page, "never")
        assert caught.value.rcvd.code == 1009


def threads(server):
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def test_of_sessions_there_are_not_too_many_and_they_end_with_their_pages(server):
    for _ in range(2):  # the second time all places are free again
        with ExitStack() as stack:
            pages = [stack.enter_context(live(server)) for _ in range(8)]
            for page in pages:
                hear(page, "frame")
                page.send('{"do": "run"}')
            before = threads(server)
            with live(server) as late, pytest.raises(ConnectionClosed) as caught:
                hear(late, "never")
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1013, "8 pages are open already: close one")
        end = time.monotonic() + SECONDS
        while threads(server) > before - 8:
            assert time.monotonic() < end, "a session outlives its page"
            time.sleep(0.1)


# The end


def test_ctrl_c_ends_it_cleanly_also_while_a_network_learns():
    with playground() as started, live(started) as page:
        hear(page, "frame")
        page.send('{"do": "run"}')
        hear(page, "frame")
        assert started.said == "The playground is at this address, on this machine alone; Ctrl-C ends it."
        assert started.interrupt() == (0, "")


def test_each_start_has_a_token_of_its_own(server):
    with playground() as another:
        assert another.path != server.path
        assert ask(another, server.path)[0] == 403
