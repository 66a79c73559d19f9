"""A hub of this machine's own: repositories in memory, behind the calls that `huggingface_hub` makes to push and fetch.

with HubStub() as hub:
    hub.address                       # for HF_ENDPOINT
    hub.repos["datasets/me/map"]      # files of the newest commit, by name

It takes one token, and answers 401 without it where something is written or private.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_stub"


class HubStub:
    """The server and what was put there."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.commits: list[tuple[str, str]] = []
        self.calls: list[str] = []
        self.sent = 0  # bytes of files
        self._known: dict[tuple[str, str], dict[str, bytes]] = {}
        stub = self

        class Handler(_Handler):
            hub = stub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "HubStub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sha(self, repo: str) -> str:
        """The newest commit."""
        content = json.dumps(sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.repos[repo].items()))
        sha = hashlib.sha1(content.encode()).hexdigest()
        self._known[repo, sha] = dict(self.repos[repo])
        return sha

    def files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """Those of a commit that was asked for once, or of the newest; None for a revision that is not known."""
        newest = self.repos.get(repo)
        return newest if newest is None or revision in ("main", self.sha(repo)) else self._known.get((repo, revision))


class _Handler(BaseHTTPRequestHandler):
    hub: HubStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append(f"POST {path}")
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if "/paths-info/" in path:
            _, repo, call = self._parts(path)
            asked, files = json.loads(body)["paths"], self.hub.files(repo, call.split("/")[1]) or {}
            return self._json([_entry(name, files[name]) for name in asked if name in files])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization')}/{asked['name']}" if asked.get("organization") else asked["name"]
            key = f"datasets/{name}" if asked.get("type") == "dataset" else name
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.add(key)
            known = key in self.hub.repos
            self.hub.repos.setdefault(key, {})
            return self._json({"url": f"{self.hub.address}/{key}", "name": name, "id": name}, 409 if known else 200)
        kind, repo, call = self._parts(path)
        if call.startswith("preupload"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._json({"files": files, "commitOid": self.hub.sha(repo)})
        if call.startswith("commit"):
            new = dict(self.hub.repos[repo])
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "deletedFile":
                    del new[line["value"]["path"]]
                if line["key"] == "file":
                    new[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "header":
                    self.hub.commits.append((repo, line["value"]["summary"]))
            self.hub.repos[repo] = new
            url = f"{self.hub.address}/{repo}/commit/{self.hub.sha(repo)}"
            return self._json({"commitUrl": url, "commitOid": self.hub.sha(repo), "success": True})
        return self._json({"error": f"{kind} {call}"}, 404)

    def do_GET(self) -> None:
        self._read(body=True)

    def do_HEAD(self) -> None:
        self._read(body=False)

    def _read(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
            repo, revision, name = found.groups()
            data = (self.hub.files(repo, revision) or {}).get(name)
            if data is None:
                return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.hub.sha(repo)}
            status = 200
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                begin, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
                headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
                data, status = data[begin : end + 1], 206
            self.hub.sent += len(data) if body else 0
            return self._send(data if body else b"", status, headers, length=len(data))
        _, repo, call = self._parts(path)
        closed = repo in self.hub.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if repo not in self.hub.repos or closed:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        revision = call.split("/")[1] if "/" in call else "main"
        files = self.hub.files(repo, revision)
        if files is None:
            return self._json({"error": "Invalid rev"}, 404, {"X-Error-Code": "RevisionNotFound"})
        sha = self.hub.sha(repo) if revision == "main" else revision
        if call.startswith("tree"):
            return self._json([_entry(name, data) for name, data in files.items()])
        siblings = [{"rfilename": name} for name in files]
        facts = {"sha": sha, "siblings": siblings, "private": repo in self.hub.private, "tags": []}
        return self._json({"id": repo.removeprefix("datasets/"), **facts})

    def _parts(self, path: str) -> tuple[str, str, str]:
        found = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(.*))?", path)
        if found is None:
            return "", "", ""
        return found[1], f"datasets/{found[2]}" if found[1] == "datasets" else found[2], found[3] or ""

    def _json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, data: bytes, status: int, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
