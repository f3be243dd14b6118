"""The examples of clients in other languages, and of Ray Serve."""

import glob
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import photo

import effnet

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = pytest.mark.elsewhere


def needs(program: str, package: str) -> str:
    """Return a program's path, or skip."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")
    return found


@pytest.fixture
def address(serve_here, serve_socket, bundles):
    """The address of a server of the tiny bundle."""
    host, port = serve_socket(serve_here(str(bundles / "tiny")).state)[:2]
    return f"http://{host}:{port}"


@pytest.fixture
def images(tmp_path):
    """A good image and a file that is none."""
    (tmp_path / "a.png").write_bytes(photo())
    (tmp_path / "b.png").write_text("no image")
    return tmp_path / "a.png", tmp_path / "b.png"


def output_of(*command) -> list[str]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_curl(address, images, bundles):
    curl = needs("curl", "curl")
    expected = effnet.load(bundles / "tiny").predict(images[0])[0]
    for words in (["--data-binary", f"@{images[0]}"], ["-F", f"image=@{images[0]}"]):
        found = json.loads("".join(output_of(curl, "-sS", *words, f"{address}/predict")))
        assert found["predictions"][0]["label"] == expected.label


def test_javascript(address, images, bundles):
    node = needs("node", "nodejs")
    first, second = output_of(node, EXAMPLES / "serve_client.mjs", address, *images)
    expected = effnet.load(bundles / "tiny").predict(images[0])[0]
    assert first == f"{images[0]}: {expected.label} {100 * expected.probabilities[0]:.1f}%"
    assert "must be a JPEG, PNG or WebP" in second


def test_java_client(address, images, bundles, tmp_path):
    javac, java = needs("javac", "default-jdk-headless"), needs("java", "default-jdk-headless")
    output_of(javac, "-Xlint:all", "-Werror", "-d", tmp_path, EXAMPLES / "java" / "ServeClient.java")
    first, second = output_of(java, "-cp", tmp_path, "ServeClient", address, *images)
    expected = effnet.load(bundles / "tiny").predict(images[0])[0]
    found = json.loads(first.removeprefix(f"{images[0]}: "))
    assert found["predictions"][0]["label"] == expected.label
    assert "must be a JPEG, PNG or WebP" in json.loads(second.removeprefix(f"{images[1]}: "))["error"]


def test_java_with_onnx_runtime(bundles, tmp_path):
    javac, java = needs("javac", "default-jdk-headless"), needs("java", "default-jdk-headless")
    jars = os.environ.get("ONNXRUNTIME_JAR", "") or next(
        iter(glob.glob("/usr/share/java/onnxruntime*.jar")), ""
    )  # fmt: skip
    if not jars:
        pytest.skip("the jar of ONNX Runtime for Java is not here: set ONNXRUNTIME_JAR to its path")
    bundle = effnet.load(bundles / "tiny")
    side, preprocess = bundle.config.preprocess.resolution, bundle.config.preprocess
    image = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    output_of(javac, "-cp", jars, "-d", tmp_path, EXAMPLES / "java" / "OnnxOnly.java")
    numbers = [",".join(map(str, values)) for values in (preprocess.mean, preprocess.std)]
    words = ["OnnxOnly", bundles / "tiny" / "model.onnx", side, *numbers, tmp_path / "a.png"]
    found = output_of(java, "-cp", f"{jars}:{tmp_path}", *words)[-1]
    row = bundle.outputs(image[None, ..., None])[0]
    assert found.startswith(f"class {row.argmax()}: ")


def test_ray_serve(bundles, images):
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    last = output_of(sys.executable, EXAMPLES / "ray_serve.py", bundles / "tiny", images[0], port)[-1]
    expected = effnet.load(bundles / "tiny").predict(images[0])[0]
    assert json.loads(last)["predictions"][0]["label"] == expected.label
