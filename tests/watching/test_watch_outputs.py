"""Where events go: lines, images, a webhook, metrics and the view."""

import http.server
import json
import shutil
import subprocess
import threading

import numpy as np
import pytest

from effnet.watching.outputs.events import Lines
from effnet.watching.outputs.latest import Latest
from effnet.watching.outputs.snapshots import Snapshots
from effnet.watching.outputs.webhook import Webhook

IMAGE = np.zeros((6, 8, 3), np.uint8)


def test_events_are_appended_a_line_each(tmp_path):
    path = tmp_path / "events.jsonl"
    for number in (1, 2):
        lines = Lines(str(path))
        lines({"event": "start", "label": "a\nb\u2028", "number": number})
        lines.close()
    found = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    assert [each["number"] for each in found] == [1, 2]
    assert found[0]["label"] == "a\nb\u2028"


def test_the_oldest_snapshots_are_removed_and_files_of_others_stay(tmp_path):
    other = tmp_path / "effnet-mine.jpg"
    other.write_bytes(b"mine")
    shots = Snapshots(tmp_path, most=3)
    names = [
        shots.write(IMAGE, source="../door one", time=f"2026-12-01T10:00:0{second}.123+00:00") for second in range(5)
    ]
    names.append(shots.write(IMAGE, source="../door one", time="2026-12-01T10:00:04.123+00:00"))
    assert len(set(names)) == 6, "also of one moment"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, *names[-3:]])
    assert all("/" not in name for name in names)


class Receiver:
    """A server that answers POSTs with the given codes, the last one for ever, and keeps what it got."""

    def __init__(self, *codes):
        self.got, codes = [], list(codes)
        got = self.got

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                got.append((self.path, json.loads(body)))
                self.send_response(codes.pop(0) if len(codes) > 1 else codes[0])
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize(
    "codes, tries, outcome, times",
    [((200,), 3, "sent", 1), ((503, 429, 204), 4, "sent", 3), ((500,), 3, "failed", 3), ((404,), 3, "failed", 1),
     ((302,), 3, "failed", 1)],
)  # fmt: skip
def test_a_webhook_tries_again_up_to_a_limit(codes, tries, outcome, times):
    receiver, outcomes, waits = Receiver(*codes), [], []
    hook = Webhook(receiver.address, tries=tries, told=outcomes.append, pause=lambda s: waits.append(s))
    hook({"event": "start"})
    hook.close(seconds=60)
    receiver.close()
    assert outcomes == [outcome]
    assert receiver.got == [("/hook", {"event": "start"})] * times
    assert waits == [0.5 * 2**k for k in range(len(waits))]
    assert len(waits) == times - 1


def test_a_webhook_that_hangs_drops_events_and_never_blocks():
    outcomes, going, free = [], threading.Event(), threading.Event()

    def hang(seconds):
        going.set()
        return not free.wait(60)

    hook = Webhook("http://127.0.0.1:9/x", tries=2, told=outcomes.append, pause=hang)
    hook({"event": "first"})
    assert going.wait(60)
    for number in range(130):
        hook({"event": number})
    assert outcomes.count("dropped") == 30
    free.set()
    hook.close(seconds=60)


@pytest.fixture
def view():
    """A client of the view, and what it shows."""
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from effnet.watching.outputs.view import watch_routes

    latest = Latest()
    with TestClient(Starlette(routes=watch_routes(latest))) as client:
        yield client, latest


def test_the_view_streams_events_and_answers(view):
    client, latest = view
    for number in range(3):
        latest.event({"event": "start", "label": f"<b>{number}\n\n"})
    latest.answered("door", {"at": 1.0, "label": "cat"}, IMAGE)
    latest.close()
    assert client.get("/watch/answers").json() == {"door": {"at": 1.0, "label": "cat"}}
    response = client.get("/watch/events", headers={"last-event-id": "1"})
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    assert [block[0] for block in blocks] == ["id: 2", "id: 3", "event: answers"], "not those that it has had"
    assert json.loads(blocks[0][2].removeprefix("data: "))["label"] == "<b>1\n\n"
    image = client.get("/watch/image", params={"source": "door"})
    assert (image.status_code, image.content[:2]) == (200, b"\xff\xd8")
    assert client.get("/watch/image", params={"source": "yard"}).status_code == 404


def test_an_old_number_of_another_watch_hides_nothing(view):
    client, latest = view
    latest.event({"event": "start"})
    latest.close()
    assert "id: 1\n" in client.get("/watch/events", headers={"last-event-id": "700"}).text
    assert "id: 1\n" in client.get("/watch/events", headers={"last-event-id": "x"}).text


def test_the_page_is_small_and_strict(view):
    client, _ = view
    sizes = 0
    for path in ("/watch", "/watch/app.js", "/watch/style.css"):
        response = client.get(path)
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in response.text.replace("https://www.w3.org", "")
        sizes += len(response.content)
    assert sizes < 10_000
    page = client.get("/watch").text
    assert "onclick" not in page
    assert "style=" not in page


def test_the_metrics_are_those_that_prometheus_takes(colour_bundle):
    pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
    from effnet.serving.settings import Settings
    from effnet.serving.versions.version import Source, load_version
    from effnet.watching.outputs.metrics import Recorded

    version = load_version(Source(name="m", folder=colour_bundle), Settings(workers=1, max_batch=1), warn=print)
    recorded = Recorded(version, ["door"], counts=lambda: (0, 1))
    recorded.frame("door", "answered")
    recorded.ran("door", seconds=0.01, age=0.02)
    recorded.up("door", True)
    recorded.event("door", "lost")
    recorded.webhook("sent")
    text = recorded.page("")[0].decode()
    for line in (
        'effnet_watch_frames_total{outcome="answered",source="door"} 1.0', 'effnet_watch_source_up{source="door"} 1.0',
        'effnet_watch_source_lost_total{source="door"} 1.0',
        'effnet_watch_events_total{event="lost",source="door"} 1.0',
        'effnet_watch_webhook_events_total{outcome="sent"} 1.0',
        'effnet_inference_duration_seconds_count{model="m"} 1.0',
    ):  # fmt: skip
        assert line in text
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
