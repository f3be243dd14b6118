"""What tests of the server share: images, and a server in this process or as its own."""

import io
import json
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photo(*, form: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB", seed: int = 0) -> bytes:
    """Return the file of a smooth random image."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).convert(mode).save(file, format=form)
    return file.getvalue()


@dataclass
class Served:
    """A server in this process: its client, its state, and its log lines."""

    client: Any
    state: Any
    lines: io.StringIO = field(default_factory=io.StringIO)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of an event."""
        found = [json.loads(line) for line in self.lines.getvalue().splitlines()]
        return [line for line in found if line["event"] == event]

    def predict(self, data: bytes, **query: Any) -> dict[str, Any]:
        """Return the answer to an image; fail if it is an error."""
        response = self.client.post("/predict", content=data, params=query)
        assert response.status_code == 200, response.text
        return response.json()


@dataclass
class Process:
    """A server as a process: its address, and its log."""

    popen: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def address(self) -> str:
        """The address of its root."""
        return f"http://127.0.0.1:{self.port}"

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of an event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def wait_for(self, event: str, *, count: int = 1, seconds: float = 300) -> dict[str, Any]:
        """Wait for the log line of an event, and return the last."""
        until = time.monotonic() + seconds
        while len(found := self.logged(event)) < count:
            assert self.popen.poll() is None or event == "ended", self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)
        return found[-1]

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.popen.send_signal(number)
