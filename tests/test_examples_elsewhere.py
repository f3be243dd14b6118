"""The examples in other languages: the page in a real browser, the C++ program against ONNX Runtime's own library."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effnet

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = EXAMPLES / "browser"
ORT_WEB = re.search(r"onnxruntime-web@[\d.]+", (PAGE / "classify.js").read_text(encoding="utf-8")).group()


def chromium():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return path or pytest.skip("no Chromium is installed")


@pytest.fixture(scope="module")
def ort_web(pytestconfig):
    """The dist folder of onnxruntime-web: $EFFNET_ORT_WEB, or what npm fetches once into pytest's cache."""
    if given := os.environ.get("EFFNET_ORT_WEB"):
        return Path(given)
    cache = Path(pytestconfig.cache.mkdir(ORT_WEB.replace("@", "-")))
    dist = cache / "package" / "dist"
    if not (dist / "ort.wasm.min.mjs").is_file():
        npm = shutil.which("npm")
        if not npm:
            pytest.skip("the page's test needs npm, or onnxruntime-web's dist folder in $EFFNET_ORT_WEB")
        try:
            subprocess.run([npm, "pack", ORT_WEB], cwd=cache, capture_output=True, timeout=300, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip(f"npm cannot fetch {ORT_WEB}; put its dist folder into $EFFNET_ORT_WEB")
        (archive,) = cache.glob("*.tgz")
        shutil.unpack_archive(archive, cache, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
        archive.unlink()
    return dist


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing; modules and WebAssembly need their types."""

    extensions_map = {  # noqa: RUF012 (as the base has it)
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_):
        pass


@pytest.fixture
def site(small_bundle, tmp_path, ort_web):
    """A served folder with the page, a bundle's model and onnxruntime-web: its path and address."""
    folder = shutil.copytree(PAGE, tmp_path / "site")
    shutil.copyfile(small_bundle / "model.onnx", folder / "model.onnx")
    (folder / "ort").mkdir()
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copyfile(ort_web / name, folder / "ort" / name)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/index.html?ort=ort/"
    server.shutdown()
    thread.join()
    server.server_close()


def visit(address, tmp_path, *, tries=3):
    """Return the page's document once its work is done.

    On a busy machine the browser's virtual time may be over before WebAssembly is compiled: it is asked again then.
    """
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--virtual-time-budget=60000", "--dump-dom"),
    ]
    done = subprocess.run([chromium(), *flags, address], capture_output=True, text=True, timeout=300, check=True)
    if 'data-done="yes"' not in done.stdout and tries > 1:
        return visit(address, tmp_path, tries=tries - 1)
    assert 'data-done="yes"' in done.stdout, done.stderr[-2000:]
    return done.stdout


def probabilities_in(page):
    found = re.search(r'data-probabilities="([^"]+)"', page)
    assert found, re.search(r'id="status"[^<]*', page).group()
    return np.array(json.loads(found.group(1)))


def save_image(path, height, width):
    """Save a smooth grey image, whose classes do not depend on a browser's resampling."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    pixels = 127 + 120 * np.sin(5 * x + 2) * np.cos(4 * y)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_the_page_gives_the_predictors_probabilities_for_a_prepared_image(site, small_bundle, tmp_path):
    folder, address = site
    model = effnet.load(small_bundle)
    preprocess = model.config.preprocess
    side = int(preprocess.resolution / preprocess.crop)  # what an image is resized to: this one is only cropped
    image = np.random.default_rng(1).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(image).save(folder / "exact.png")
    page = visit(f"{address}&image=exact.png", tmp_path)
    expected = model.probabilities(model.prepare(folder / "exact.png")[None])[0]
    np.testing.assert_allclose(probabilities_in(page), expected, rtol=0, atol=1e-3)
    names = re.findall(r'class="name">([^<]*)<', page)
    assert names == list(model.predict([folder / "exact.png"])[0].labels)
    assert f"Which of {len(model.config.class_names)} classes is it?" in page


def test_the_page_resizes_a_larger_image(site, small_bundle, tmp_path):
    folder, address = site
    save_image(folder / "large.png", 120, 200)
    page = visit(f"{address}&image=large.png", tmp_path)
    (expected,) = effnet.load(small_bundle).predict([folder / "large.png"])
    assert re.search(r'class="name">([^<]*)<', page).group(1) == expected.labels[0]


def test_the_page_says_what_is_missing(site, tmp_path):
    folder, address = site
    (folder / "model.onnx").unlink()
    assert "The model cannot be used: there is no model.onnx beside this page (404)" in visit(address, tmp_path)


def test_the_page_without_files_beside_it_takes_a_pinned_version():
    text = (PAGE / "classify.js").read_text(encoding="utf-8")
    assert re.search(r"https://cdn\.jsdelivr\.net/npm/onnxruntime-web@\d+\.\d+\.\d+/dist/", text)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The C++ example, built with CMake against the release of ONNX Runtime in $ORT_ROOT."""
    root, cmake = os.environ.get("ORT_ROOT"), shutil.which("cmake")
    if not root or not cmake:
        pytest.skip("the C++ example's test needs cmake and, in $ORT_ROOT, an unpacked release of ONNX Runtime")
    build = tmp_path_factory.mktemp("cpp")
    for words in (["-S", EXAMPLES / "cpp", "-B", build, f"-DORT_ROOT={root}"], ["--build", build]):
        done = subprocess.run([cmake, *map(str, words)], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "classify"


def test_the_cpp_program_gives_the_predictors_probabilities(program, small_bundle, tmp_path):
    model = effnet.load(small_bundle)
    prepared = model.prepare(save_image(tmp_path / "x.png", 120, 200))
    Image.fromarray(prepared[..., 0]).save(tmp_path / "x.ppm")  # grey: a PGM, whatever it is called
    command = [str(program), str(small_bundle / "model.onnx"), str(tmp_path / "x.ppm")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = [line.split(" ", 1) for line in done.stdout.splitlines()]
    (expected,) = model.predict([tmp_path / "x.png"])
    assert [name for _, name in found] == list(expected.labels)
    np.testing.assert_allclose([float(share) for share, _ in found], expected.probabilities, atol=1e-5)


def test_the_cpp_program_says_what_is_wrong(program, small_bundle, tmp_path):
    Image.new("L", (3, 3)).save(tmp_path / "x.pgm")
    for words, code, message in (
        ([], 2, "usage: classify"),
        ([small_bundle / "model.onnx", tmp_path / "x.pgm"], 1, "the image must have"),
        ([small_bundle / "model.onnx", tmp_path / "gone.pgm"], 1, "must be a PPM or PGM"),
    ):
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code
        assert message in done.stderr
