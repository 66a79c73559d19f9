"""`vfl serve`: a real process that answers at this machine's own address, and one paragraph for bad input."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from urllib.error import URLError

import pytest

needs_app = pytest.mark.skipif(find_spec("starlette") is None, reason='needs the extra app: pip install "vfl[app]"')


def test_what_is_no_folder_is_said(vfl_command, tmp_path):
    code, _, errors = vfl_command("serve", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere is no folder. Give one that holds runs" in errors


def test_without_the_extra_it_says_what_to_install(vfl_command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, errors = vfl_command("serve", tmp_path)
    assert code == 2
    assert 'vfl serve needs uvicorn, which is not installed: pip install "vfl[app]"' in errors


@needs_app
def test_it_answers_at_this_machine_s_own_address(tmp_path):
    (tmp_path / "map.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vfl", "serve", str(tmp_path), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        address = re.match(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
        page = fetched(address, server)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
    assert "<h2>Map</h2>" in page


def fetched(address, server):
    """The page, as soon as the server listens; it says its address just before."""
    while server.poll() is None:
        try:
            return urllib.request.urlopen(address, timeout=60).read().decode()
        except URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
    raise AssertionError(f"the server ended with {server.returncode}")
