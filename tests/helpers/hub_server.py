"""A stand-in for the Hugging Face hub: the real client publishes repositories to it and downloads them from it."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from file_server import running

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """The files of each repository, and the paths of the requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined]

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer(self, value: Any) -> None:
        self.send(json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self) -> None:
        self.hub.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        words = unquote(self.path).strip("/").split("/")
        repo = "/".join(words[2:4])
        if words[-1] == "create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.hub.files.setdefault(repo, {})
            self.answer({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})
        elif "preupload" in words:
            asked = json.loads(body)["files"]
            self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]})
        elif "commit" in words:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.hub.files[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.hub.url}/{repo}/commit/{COMMIT}"
            self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url})
        else:  # the check of a card
            self.answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self.hub.asked.append(self.path)
        words = unquote(self.path.partition("?")[0]).strip("/").split("/")
        content = self.hub.files.get("/".join(words[:2]), {}).get("/".join(words[4:]))
        if content is None:
            self.send(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            self.send(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@contextmanager
def serving_hub() -> Iterator[HubServer]:
    """Serve a hub without repositories until the end of the context."""
    with running(_Handler) as server:
        hub = server.hub = HubServer(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
        yield hub
