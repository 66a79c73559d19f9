"""The judge against a local stub server: asked once an answer, and never trusted blindly."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from vfl.errors import InputError
from vfl.measure import judge as judge_module
from vfl.measure.config import JudgeConfig
from vfl.measure.judge import Judge


class Stub(BaseHTTPRequestHandler):
    """Says yes to answers that hold "cat"; the first requests get the statuses in `failures`."""

    seen: list
    failures: list
    reply = None

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).seen.append((self.path, self.headers.get("Authorization"), body))
        status = type(self).failures.pop(0) if type(self).failures else 200
        said = "Yes." if "Answer: a cat" in body["messages"][-1]["content"] else "no"
        sent = type(self).reply or json.dumps({"choices": [{"message": {"content": said}}]})
        self.send_response(status)
        self.end_headers()
        self.wfile.write(sent.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def stub(monkeypatch):
    Stub.seen, Stub.failures, Stub.reply = [], [], None
    monkeypatch.setattr(judge_module, "WAIT", 0.0)
    server = HTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def config(stub, **more):
    return JudgeConfig(url=f"http://127.0.0.1:{stub.server_port}/v1", model="grader", **more)


def test_answers_are_judged_once_and_verdicts_are_kept(stub, tmp_path):
    judge = Judge(config(stub), tmp_path / "judge.jsonl")
    for _ in range(2):
        assert judge.right("what is it", "cat", "a cat sits there\nit does")
        assert not judge.right("what is it", "cat", "dog")
        assert not judge.right("what is it", "cat", "  ")
    assert len(Stub.seen) == 2
    path, key, body = Stub.seen[0]
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", None, "grader", 0)
    with (tmp_path / "judge.jsonl").open("a") as file:
        file.write('{"question": "cut o')  # an interruption
    again = Judge(config(stub), tmp_path / "judge.jsonl")
    assert again.right("what is it", "cat", "a cat sits there\nit does")
    assert len(Stub.seen) == 2
    assert not again.right("what is it", "cat", "cow")
    rows = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert [row["right"] for row in rows] == [True, False, False]


def test_the_key_comes_from_the_environment(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADER_KEY", "secret")
    Judge(config(stub, key_variable="GRADER_KEY"), tmp_path / "judge.jsonl").right("q", "cat", "a cat")
    assert Stub.seen[0][1] == "Bearer secret"
    assert "secret" not in (tmp_path / "judge.jsonl").read_text()
    monkeypatch.delenv("GRADER_KEY")
    with pytest.raises(InputError, match="GRADER_KEY"):
        Judge(config(stub, key_variable="GRADER_KEY"), tmp_path / "judge.jsonl")


def test_a_busy_endpoint_is_asked_again_and_a_refusing_one_is_not(stub, tmp_path):
    judge = Judge(config(stub), tmp_path / "judge.jsonl")
    Stub.failures = [503, 429]
    assert judge.right("q", "cat", "a cat")
    assert len(Stub.seen) == 3
    Stub.failures = [401]
    with pytest.raises(InputError, match="status 401"):
        judge.right("q", "cat", "dog")
    assert len(Stub.seen) == 4


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ('{"choices": [{"message": {"content": "maybe"}}]}', "replied 'maybe'; expected yes or no"),
        ('{"error": "no"}', "sent no chat completion"),
        ("<html>", "sent no JSON"),
    ],
)
def test_a_reply_that_is_no_verdict_is_refused(stub, tmp_path, reply, message):
    Stub.reply = reply
    with pytest.raises(InputError, match=message):
        Judge(config(stub), tmp_path / "judge.jsonl").right("q", "cat", "a cat")
    assert not (tmp_path / "judge.jsonl").exists()


def test_an_address_is_checked():
    with pytest.raises(ValueError, match="begins with http"):
        JudgeConfig(url="file:///etc/passwd", model="m")
    assert JudgeConfig(url="https://x/v1/chat/completions", model="m").url == "https://x/v1"
