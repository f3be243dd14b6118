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
from dense_bundles import write_detector
from PIL import Image

import effnet
from effnet.data.preprocess import Preprocess
from effnet.data.view.letterbox import letterbox
from effnet.tasks.boxes.candidates import detect
from effnet.tasks.boxes.points import decode_points, points

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = EXAMPLES / "browser"
ORT_WEB = re.search(r"onnxruntime-web@[\d.]+", (PAGE / "model.js").read_text(encoding="utf-8")).group()


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
    """A served folder with the pages, a bundle's model and onnxruntime-web: its path and address."""
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
    text = (PAGE / "model.js").read_text(encoding="utf-8")
    assert re.search(r"https://cdn\.jsdelivr\.net/npm/onnxruntime-web@\d+\.\d+\.\d+/dist/", text)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The folder of the C++ examples, built with CMake against the release of ONNX Runtime in $ORT_ROOT."""
    root, cmake = os.environ.get("ORT_ROOT"), shutil.which("cmake")
    if not root or not cmake:
        pytest.skip("the C++ example's test needs cmake and, in $ORT_ROOT, an unpacked release of ONNX Runtime")
    build = tmp_path_factory.mktemp("cpp")
    for words in (["-S", EXAMPLES / "cpp", "-B", build, f"-DORT_ROOT={root}"], ["--build", build]):
        done = subprocess.run([cmake, *map(str, words)], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build


def test_the_cpp_program_gives_the_predictors_probabilities(program, small_bundle, tmp_path):
    model = effnet.load(small_bundle)
    prepared = model.prepare(save_image(tmp_path / "x.png", 120, 200))
    Image.fromarray(prepared[..., 0]).save(tmp_path / "x.ppm")  # grey: a PGM, whatever it is called
    command = [str(program / "classify"), str(small_bundle / "model.onnx"), str(tmp_path / "x.ppm")]
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
        done = subprocess.run([program / "classify", *words], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code
        assert message in done.stderr


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A bundle of a detector, and an image that its input shows without resizing."""
    folder = write_detector(tmp_path_factory.mktemp("detector") / "bundle")
    pixels = np.random.default_rng(2).integers(0, 256, (80, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "exact.png")
    return folder


def assert_objects(found, expected, names, *, score, pixels):
    """Assert that objects, (name, score, box) each, are those of a predictor; equal scores may change places."""
    assert len(found) == len(expected) > 5
    for name, value, box in found:
        near = np.abs(expected.boxes - box).max(1) < pixels
        same = np.array([names[kind] for kind in expected.classes]) == name
        assert (near & same & (np.abs(expected.scores - value) < score)).any(), (name, value, box)


def test_the_page_finds_the_predictors_objects(site, detector, tmp_path):
    folder, address = site
    shutil.copyfile(detector / "model.onnx", folder / "model.onnx")
    shutil.copyfile(detector / "exact.png", folder / "exact.png")
    page = visit(f"{address.replace('index', 'detect')}&image=exact.png", tmp_path)
    found = re.search(r'data-objects="([^"]+)"', page)
    assert found, re.search(r'id="status"[^<]*', page).group()
    model = effnet.load(detector)
    (expected,) = model.predict(detector / "exact.png")
    rows = [(row["name"], row["score"], row["box"]) for row in json.loads(found.group(1).replace("&quot;", '"'))]
    assert_objects(rows, expected, model.config.class_names, score=1e-3, pixels=0.5)
    counts = np.bincount(expected.classes)
    assert f"{counts[0]} button" in page
    assert f"{counts[1]} coin" in page


def raw_outputs(*, height, width, classes=3):
    """Return raw boxes and logits of a detector of points, with several of each object, and the decoding."""
    rng, places = np.random.default_rng(0), points(height, width)
    raw = rng.normal(0.3, 0.6, (len(places), 4)).astype(np.float32)
    logits = rng.normal(-1.5, 1.5, (len(places), classes)).astype(np.float32)
    return raw, logits, lambda some, at: decode_points(some, places.centres[at], places.strides[at])


SIZES = [(96, 160), (200, 136)]
IMAGES = [(1, 1), (7, 900), (333, 250), (4000, 3000)]


@pytest.mark.parametrize("height, width", SIZES)
def test_the_pages_boxes_are_decoded_and_suppressed_as_effnets(height, width, tmp_path):
    node = shutil.which("node") or pytest.skip("the page's functions are tested with node, which is not installed")
    raw, logits, decode = raw_outputs(height=height, width=width)
    expected = detect(raw, logits, decode, threshold=0.3, most=1000)
    shutil.copyfile(PAGE / "boxes.js", tmp_path / "boxes.mjs")
    given = {"raw": raw.ravel().tolist(), "logits": logits.ravel().tolist(), "width": width, "height": height}
    script = f"""
        import {{ detect, letterbox }} from "./boxes.mjs";
        const given = {json.dumps(given)};
        const inner = {json.dumps(IMAGES)}.map(([w, h]) => letterbox(w, h, given));
        console.log(JSON.stringify([detect(given.raw, given.logits, given, {{ threshold: 0.3 }}), inner]));
    """
    (tmp_path / "test.mjs").write_text(script)
    done = subprocess.run([node, "test.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    found, inner = json.loads(done.stdout)
    assert 20 < len(found) == len(expected)
    np.testing.assert_allclose([row["box"] for row in found], expected.boxes, atol=1e-2)
    np.testing.assert_allclose([row["score"] for row in found], expected.scores, atol=1e-6)
    assert [row["kind"] for row in found] == expected.classes.tolist()
    wanted = [
        letterbox(h, w, input_height=height, input_width=width) for w, h in ((1, 1), (7, 900), (333, 250), (4000, 3000))
    ]
    assert inner == [{"width": box.inner_width, "height": box.inner_height} for box in wanted]


CPP = """
#include <cstdio>
#include "boxes.h"
#include "files.h"
int main(int, char** words) {
  const int64_t height = std::stol(words[2]), width = std::stol(words[3]);
  const int64_t places = int64_t(cells(height, width).size());
  for (int level : read_fill(words[4], 3)) std::printf("%d ", level);
  std::printf("\\n");
  std::vector<float> numbers(size_t(places) * 7);
  std::FILE* file = std::fopen(words[1], "rb");
  if (std::fread(numbers.data(), 4, numbers.size(), file) != numbers.size()) return 1;
  for (const auto& o : detect(numbers.data(), numbers.data() + 4 * places, places, 3, height, width, 0.3f)) {
    std::printf("%ld %.7f %.5f %.5f %.5f %.5f\\n", long(o.kind), o.score, o.box[0], o.box[1], o.box[2], o.box[3]);
  }
}
"""


def test_the_cpp_boxes_are_decoded_and_suppressed_as_effnets(tmp_path):
    compiler = shutil.which("g++") or shutil.which("clang++") or pytest.skip("no C++ compiler is installed")
    (tmp_path / "test.cpp").write_text("#include <string>\n" + CPP)
    words = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", EXAMPLES / "cpp", "test.cpp", "-o", "test"]
    done = subprocess.run([compiler, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for height, width in SIZES:
        raw, logits, decode = raw_outputs(height=height, width=width)
        (tmp_path / "numbers").write_bytes(raw.tobytes() + logits.tobytes())
        preprocess = Preprocess(resolution=width, height=height, mode="corner", crop=1.0)
        run = [tmp_path / "test", tmp_path / "numbers", str(height), str(width), json.dumps(preprocess.to_dict())]
        done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=True)
        fill, *lines = done.stdout.splitlines()
        assert tuple(map(int, fill.split())) == preprocess.fill
        expected = detect(raw, logits, decode, threshold=0.3, most=1000)
        rows = np.array([line.split() for line in lines], float)
        assert rows[:, 0].tolist() == expected.classes.tolist()
        np.testing.assert_allclose(rows[:, 1], expected.scores, atol=1e-6)
        np.testing.assert_allclose(rows[:, 2:], expected.boxes, atol=1e-2)


def test_the_cpp_program_finds_the_predictors_objects(program, detector, tmp_path):
    Image.open(detector / "exact.png").save(tmp_path / "x.ppm")
    command = [program / "detect", detector / "model.onnx", tmp_path / "x.ppm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    model = effnet.load(detector)
    (expected,) = model.predict(detector / "exact.png")
    rows = [
        (name, float(score), np.array(box, float)) for name, score, *box in map(str.split, done.stdout.splitlines())
    ]
    assert_objects(rows, expected, model.config.class_names, score=1e-4, pixels=0.1)
