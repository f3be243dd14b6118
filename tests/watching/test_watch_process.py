"""`effnet watch` as a process: the server beside it, a camera's stream, and signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

pytest.importorskip("av", reason="the extra video is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")


def test_a_watch_shows_itself_and_ends_at_sigterm(colour_bundle, colour_clip, tmp_path):
    events = tmp_path / "events.jsonl"
    command = [
        sys.executable, "-m", "effnet", "watch", f"yard={colour_clip}", "rtsp://127.0.0.1:9/away", "--model",
        str(colour_bundle), "--rule", "blue > 0.5", "--events", str(events), "--view", "--metrics-port", "0", "--set",
        "watch.realtime=true",
    ]  # fmt: skip
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stderr=log, env=os.environ)
    try:
        wait_for(process, lambda: events.exists() and '"start"' in events.read_text(), tmp_path / "log")
        address = re.search(r"http://[\d.:]+", (tmp_path / "log").read_text())[0]
        answers = json.loads(get(f"{address}/watch/answers"))
        assert answers["yard"]["active"] == ["blue > 0.5"]
        assert answers["yard"]["predictions"][0]["label"] == "blue"
        assert 'effnet_watch_source_up{source="127.0.0.1:9"} 0.0' in get(f"{address}/metrics")
        assert "watch/app.js" in get(address)
        with urllib.request.urlopen(f"{address}/watch/events", timeout=300) as stream:
            assert stream.readline().startswith(b"id: 1")
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0
    finally:
        process.kill()
        process.wait()
    found = [json.loads(line) for line in events.read_text().splitlines()]
    assert [each["event"] for each in found if each["source"] == "yard"] == ["opened", "start", "end"]
    lost = next(each for each in found if each["source"] == "127.0.0.1:9")
    assert (lost["event"], lost["reason"]) == ("lost", "connection refused")


def get(address):
    with urllib.request.urlopen(address, timeout=300) as response:
        return response.read().decode()


def wait_for(process, reached, log):
    until = time.monotonic() + 300
    while not reached():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)
