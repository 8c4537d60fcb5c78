"""A stand-in for the hub of models and data sets: a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repositories: Mapping[str, Path], cache: Path) -> Iterator[dict[str, str]]:
    """Serve folders as repositories of one commit; give the environment of a process that is to know no other hub.

    Args:
        repositories: "models/user/name" or "datasets/user/name" -> the folder of its files.
        cache: Where that process keeps what it has fetched.
    """

    class Answer(_Answer):
        served = repositories

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache)}
    try:
        yield {**os.environ, **here}
    finally:
        server.shutdown()
        server.server_close()


class _Answer(BaseHTTPRequestHandler):
    """What the hub says of a repository, of its tree, and of a file: and how it says that there is no such."""

    protocol_version = "HTTP/1.1"
    served: Mapping[str, Path] = {}

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        is_question = path.startswith("api/")
        path = path.removeprefix("api/")
        path = path if path.startswith("datasets/") or is_question else f"models/{path}"
        name = next((n for n in self.served if path == n or path.startswith(f"{n}/")), None)
        if name is None:
            self._refuse(401, "RepoNotFound")
            return
        kind, revision, rest = (*path.removeprefix(name).strip("/").split("/", 2), "", "")[:3]
        if revision not in ("", "main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif kind == "resolve":
            self._file(self.served[name] / rest)
        elif kind == "tree":
            self._send(json.dumps([_entry(p) for p in sorted(self.served[name].iterdir())]).encode())
        else:
            siblings = [{"rfilename": p.name} for p in sorted(self.served[name].iterdir())]
            told = {"id": name.partition("/")[2], "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(told).encode())

    def _file(self, path: Path) -> None:
        if path.is_file():
            self._send(path.read_bytes())
        else:
            self._refuse(404, "EntryNotFound")

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"type": "file", "path": path.name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
