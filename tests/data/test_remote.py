"""Addresses: refused unless allowed; then fetched when opened, with limits, and never from this machine's files."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vfl.data import BadRow, Sample, check_images, read
from vfl.data.remote import fetch
from vfl.errors import InputError


@pytest.fixture
def server(png):
    """An http server: /image, /big, /endless, /absent, and redirections; `.asked` are the paths that were asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.path in ("/image", "/big"):
                body = png("green", (6, 3)) if self.path == "/image" else bytes(10_000)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)
            elif self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                try:
                    while not self.server.stopped.wait(0.01):
                        self.wfile.write(b"x")
                except OSError:
                    pass
            elif self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
            else:
                self.send_error(404)

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.asked, running.stopped = [], threading.Event()
    thread = threading.Thread(target=running.serve_forever, args=[0.01])
    thread.start()
    yield running
    running.stopped.set()
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def address(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return lambda path: f"http://127.0.0.1:{server.server_port}{path}"


@pytest.fixture
def read_image(tmp_path, turns):
    def _read(name, **options):
        (tmp_path / "row.json").write_text(json.dumps([{"messages": turns("What?", "A"), "image": name}]))
        (found,) = read(tmp_path / "row.json", **options)
        return found

    return _read


def test_refused_unless_allowed(read_image, address, server):
    found = read_image(address("/image"))
    assert isinstance(found, BadRow)
    assert "is on the network" in found.reason
    assert server.asked == []


def test_fetched_when_opened_and_not_before(read_image, address, server):
    sample = read_image(address("/image"), allow_remote=True)
    assert isinstance(sample, Sample)
    assert server.asked == []
    assert sample.images[0].open().size == (6, 3)
    assert server.asked == ["/image"]


@pytest.mark.parametrize("name", ["ftp://example.org/a.png", "s3://bucket/a.png", "hf://datasets/a/b.png"])
def test_other_schemes_are_refused(read_image, name):
    assert "cannot be fetched" in read_image(name, allow_remote=True).reason


def test_what_is_not_there_is_a_bad_row_of_the_check(read_image, address):
    for path, reason in (("/absent", "404"), ("/big", "none of BMP")):
        (bad,) = check_images([read_image(address(path), allow_remote=True)])
        assert reason in bad.reason
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        (bad,) = check_images([read_image(f"http://127.0.0.1:{port}/a", allow_remote=True)])
        assert "cannot be fetched" in bad.reason


def test_size_and_time_are_limited(address):
    with pytest.raises(InputError, match="more than 9999 bytes"):
        fetch(address("/big"), max_bytes=9_999)
    assert len(fetch(address("/big"), max_bytes=10_000)) == 10_000
    with pytest.raises(InputError, match=r"not there after 0\.1 seconds"):
        fetch(address("/endless"), seconds=0.1)


def test_redirections_stay_on_the_network(address, tmp_path, png):
    (tmp_path / "secret.png").write_bytes(png())
    assert fetch(address(f"/to/{address('/image')}")) == png("green", (6, 3))
    for target in (f"file://{tmp_path}/secret.png", "ftp://127.0.0.1/a"):
        with pytest.raises(InputError, match="cannot be fetched"):
            fetch(address(f"/to/{target}"))
