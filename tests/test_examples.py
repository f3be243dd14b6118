"""Every example runs and does what its docstring says."""

import ast
import functools
import importlib.util
import re
import runpy
import sys
from pathlib import Path

import captioned
import numpy as np
import pytest
from bundles import add_score, make_bundle
from dense_bundles import write_detector
from PIL import Image
from pretrained_runs import striped
from procedures import BRIEF, TINIEST, UNTIMED, made_up

import effnet
from effnet.arch import blocks
from effnet.bundle.weights import load_state
from effnet.data.preprocess import Preprocess, normalize, resize_and_crop
from effnet.jobs.procedure import Procedure
from effnet.nas.policy import Policy
from effnet.runtimes.write import write_export
from effnet.tasks.known import KnownScore

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Return a runner of an example within this process, which gives the lines that it printed."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        (path,) = (path for path in EXAMPLES if path.stem == name)
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert f"python examples/{path.name}" in ast.get_docstring(ast.parse(text))
    assert f"test_{path.stem}" in globals()


def test_scale_a_network(run_example):
    head, *rows = run_example("scale_a_network", "--max-macs", "50e6")
    assert head.split()[:3] == ["phi", "pixels", "params"]
    b0 = next(row for row in rows if row.split()[0] == "0.00")
    assert "5,288,548" in b0
    assert int(rows[-1].split()[3].replace(",", "")) <= 50e6


def test_block_kind(run_example, monkeypatch):
    monkeypatch.setattr(blocks, "_KINDS", dict(blocks._KINDS))
    *networks, last = run_example("block_kind")
    params = [int(line.split(": ")[1].split()[0].replace(",", "")) for line in networks]
    assert params[0] < params[2] < params[1]
    assert last == "probabilities in ONNX Runtime: (1, 10)"


def test_serve_client(run_example, tmp_path):
    """Against a server in a thread, which is busy once: the client tries again."""
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    import threading

    import uvicorn

    from effnet.serving.http.app import make_app
    from effnet.serving.http.state import State
    from effnet.serving.settings import Settings
    from effnet.serving.versions.version import read_sources

    (tmp_path / "model").mkdir()
    make_bundle(tmp_path / "model")
    state = State(read_sources([str(tmp_path / "model")]), Settings(workers=1, max_batch=1, log_requests=False))
    config = uvicorn.Config(make_app(state), port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    threading.Timer(0.2, state.models.load).start()  # until then it answers 503
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    first, second = run_example("serve_client", f"http://127.0.0.1:{port}", tmp_path / "a.png", tmp_path / "b.png")
    server.should_exit = True
    thread.join()
    state.close()
    predicted = effnet.load(tmp_path / "model").predict(tmp_path / "a.png")[0]
    assert first == f"{tmp_path / 'a.png'}: {predicted.label} {round(predicted.probabilities[0], 6):.1%}"
    assert "must be a JPEG, PNG or WebP file" in second


def test_corrections(run_example, tiny_images, tmp_path):
    right, out = "--right", "--leave-out"
    lines = run_example(
        "corrections", tiny_images, right, "dark/03.png=light", out, "dark/04.png", "--file", tmp_path / "c.jsonl"
    )
    assert "1 labels changed, 1 images left out" in lines[0]
    assert lines[1:3] == [
        "before: {'dark': 20, 'light': 20, 'middle': 20}",
        "after:  {'dark': 18, 'light': 21, 'middle': 20}",
    ]


def test_least_known(run_example, tiny_images, tmp_path):
    bundle = add_score(make_bundle(tmp_path / "model"), KnownScore(method="energy", threshold=1e6))
    first, *lines = run_example("least_known", bundle, tiny_images, "--most", "7")
    assert first == "by the energy of the logits:"
    assert len(lines) == 7
    assert all(line.split()[1] == "unknown" for line in lines)
    values = [float(line.split()[0]) for line in lines]
    assert values == sorted(values)


def test_watch_door(run_example, tmp_path):
    pytest.importorskip("av", reason="the extra video is not installed")
    from clips import plain, write_clip, write_colour_bundle

    bundle = write_colour_bundle(tmp_path / "bundle")
    clip = write_clip(tmp_path / "door.mp4", [plain("blue")] * 10 + [plain("red")] * 20)
    start, end, last = run_example("watch_door", bundle, clip, "red > 0.5 for 1s")
    seconds, text = start.split(" s: ")
    assert 2.0 <= float(seconds) <= 2.6, "a second after red begins, and the average follows"
    assert text.startswith("start of 'red > 0.5 for 1s'")
    assert end == "at the end: end of 'red > 0.5 for 1s'"
    assert last.startswith("30 frames of ")


def test_custom_network(run_example):
    lines = run_example("custom_network")
    counted, built = (word for word in lines[-2].split() if word[0].isdigit())
    assert counted == built
    assert lines[-1] == "logits: (2, 10)"


@pytest.mark.elsewhere
def test_fit_and_predict(run_example, tmp_path, monkeypatch):
    quickly = Procedure(stopwatch=BRIEF, space=TINIEST)
    monkeypatch.setattr(effnet, "fit", functools.partial(effnet.fit, procedure=quickly))
    # Ten times the example's own budget: this machine may be busy.
    lines = run_example("fit_and_predict", "--epochs", 1, "--max-latency-ms", 5, "--out", tmp_path / "out")
    assert "accuracy" in lines[0]
    assert "latency" in lines[1]
    assert len([line for line in lines if line.startswith("a ")]) == 5
    assert (tmp_path / "out" / "model.onnx").is_file()


@pytest.fixture
def fit_untimed(monkeypatch):
    """Let an example's fit plan with few networks and measure none."""
    monkeypatch.setattr(effnet, "fit", functools.partial(effnet.fit, procedure=made_up(space=TINIEST)))


def test_medical(run_example, fit_untimed, tmp_path):
    pytest.importorskip("pydicom")
    lines = run_example("medical", "--patients", 30, "--epochs", 1, "--out", tmp_path / "out")
    assert any(line.startswith("60 images share a PatientID with others (30 patients)") for line in lines)
    found = effnet.load(tmp_path / "out").config.preprocess.value_range
    assert (found.low, found.high, found.window) == (-1350, 149, True)
    assert lines[-1].split(": ")[1] in ("clear", "nodule")


def test_satellite(run_example, fit_untimed, tmp_path):
    *_, bands, last = run_example("satellite", "--tiles", 8, "--epochs", 1, "--out", tmp_path / "out")
    assert bands.startswith("bands: 8 ranges: ")
    assert effnet.load(tmp_path / "out").config.preprocess.value_range.channels == 8
    assert last.split(": ")[1] in ("healthy", "dry", "bare")


def test_industrial(run_example, fit_untimed, tmp_path):
    lines = run_example("industrial", "--parts", 12, "--epochs", 1, "--out", tmp_path / "out")
    assert any("from 0..4095 are mapped to 0..255, as for 12 bits" in line for line in lines)
    assert [line.split(":")[0].strip() for line in lines[-4:-1]] == ["dent", "good", "scratch"]
    assert lines[-1].split(": ")[1] in ("good", "scratch", "dent")


def test_sound(run_example, fit_untimed, tmp_path):
    pytest.importorskip("soundfile")
    lines = run_example("sound", "--sounds", 8, "--epochs", 1, "--out", tmp_path / "out")
    assert any(line.startswith("Sounds become spectrograms: ") for line in lines)
    assert effnet.load(tmp_path / "out").config.preprocess.sound.rate == 8000
    assert lines[-1].split(": ")[1] in ("siren", "knock", "hiss", "hum")


@pytest.mark.elsewhere
def test_detection(run_example, tmp_path, monkeypatch):
    monkeypatch.setattr(effnet, "fit", functools.partial(effnet.fit, procedure=UNTIMED))
    figures, found, truth = run_example("detection", "--images", 24, "--epochs", 1, "--out", tmp_path / "out")
    assert re.fullmatch(r"AP [\d.]+%, AP50 [\d.]+% on \d images; counts off by [\d.]+", figures)
    assert found.startswith("found: {")
    assert truth.startswith("there are: {")
    assert effnet.load(tmp_path / "out").config.class_names == ("copper", "gold", "silver")


@pytest.mark.elsewhere
def test_segmentation(run_example, tmp_path, monkeypatch):
    monkeypatch.setattr(effnet, "fit", functools.partial(effnet.fit, procedure=UNTIMED))
    figure, *shares = run_example("segmentation", "--images", 24, "--epochs", 1, "--out", tmp_path / "out")
    assert re.fullmatch(r"mIoU [\d.]+% on \d images", figure)
    assert [line.split(":")[0] for line in shares] == ["field", "water", "road"]
    found, truth = ([float(line.split()[i].rstrip("%,")) for line in shares] for i in (1, -1))
    assert sum(found) == pytest.approx(100, abs=0.2)
    assert sum(truth) == pytest.approx(100, abs=0.2)


def test_detection_onnxruntime_only(run_example, tmp_path):
    """A detector's objects without effnet are effnet's, for images that are resized up and down, and for any shape."""
    bundle, rng, paths = write_detector(tmp_path / "bundle"), np.random.default_rng(0), []
    for number, size in enumerate(((96, 128), (40, 61), (300, 200), (3, 500))):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(paths[-1])
    lines = run_example("detection_onnxruntime_only", bundle / "model.onnx", *paths)
    model, expected = effnet.load(bundle), []
    for path, found in zip(paths, model.predict(paths), strict=True):
        names = [model.config.class_names[kind] for kind in found.classes]
        expected += [(f"{path}:", *row) for row in zip(names, found.scores, found.boxes, strict=True)]
    assert len(lines) == len(expected) > 20
    for line, (path, name, score, box) in zip(lines, expected, strict=True):
        place, kind, *numbers = line.split()
        assert (place, kind) == (path, name)
        np.testing.assert_allclose([float(number) for number in numbers], [score, *box], atol=0.06)


@pytest.mark.elsewhere
def test_search_a_network(run_example, tmp_path, monkeypatch):
    policy = Policy(size=2, references=1, scaled=1, finalists=1, seeds=1, final_epochs=1, timed=2)
    quickly = Procedure(stopwatch=BRIEF, search=policy)
    search = effnet.search  # a busy machine trains fewer networks in two minutes
    monkeypatch.setattr(effnet, "search", lambda *a, **k: search(*a, **k | {"minutes": 30, "procedure": quickly}))
    *networks, found, last = run_example("search_a_network", tmp_path / "out")
    assert len(networks) == 1 + 4
    assert sum("  scaled  " in line for line in networks) >= 2
    assert "The search (surrogate) trained " in found
    assert last.endswith(" ms")


def test_onnxruntime_only(run_example, small_bundle, tmp_path):
    rng, paths = np.random.default_rng(0), []
    for i, size in enumerate(((8, 8), (40, 61), (300, 200))):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(paths[-1])
    lines = run_example("onnxruntime_only", small_bundle / "model.onnx", *paths)
    expected = effnet.load(small_bundle).predict(paths, top=1)
    assert lines == [f"{path}: {p.label} {p.probabilities[0]:.1%}" for path, p in zip(paths, expected, strict=True)]


def prepare_of(name):
    """Return the source of an example's `prepare`."""
    text = next(path for path in EXAMPLES if path.stem == name).read_text(encoding="utf-8")
    (node,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "prepare")
    return ast.get_source_segment(text, node)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["center", "squash", "pad"])
def test_the_examples_resize_as_effnet_does(mode, channels, tmp_path):
    names = ("onnxruntime_only", "executorch_only", "litert_only", "openvino_only")
    assert len({prepare_of(name) for name in names}) == 1
    path = next(path for path in EXAMPLES if path.stem == names[0])
    prepare = runpy.run_path(str(path))["prepare"]
    means = (0.5, 0.333, 0.1)[:channels]
    preprocess = Preprocess(resolution=32, crop=1.0 if mode == "pad" else 0.9, mode=mode, mean=means, std=means)
    rng = np.random.default_rng(0)
    for size in ((32, 32), (40, 161), (300, 7), (1, 90)):
        pixels = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
        Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(tmp_path / "x.png")
        expected = resize_and_crop(pixels, preprocess)
        assert np.array_equal(prepare(str(tmp_path / "x.png"), preprocess.to_dict()), expected), size
    with pytest.raises(SystemExit, match="resized as 'fold', which this example does not support"):
        prepare(str(tmp_path / "x.png"), {**preprocess.to_dict(), "mode": "fold"})


@pytest.fixture
def grey_images(tmp_path):
    """The paths of grey images of several sizes."""
    rng, paths = np.random.default_rng(0), []
    for i, size in enumerate(((8, 8), (40, 61), (300, 200))):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.mark.parametrize("runtime", [pytest.param("executorch", marks=pytest.mark.elsewhere), "openvino", "litert"])
@pytest.mark.filterwarnings("ignore:This API is experimental")
@pytest.mark.filterwarnings("ignore:read_text is deprecated:DeprecationWarning")
def test_an_export_needs_no_effnet_to_predict(run_example, small_bundle, grey_images, tmp_path, runtime):
    if importlib.util.find_spec(f"effnet.runtimes.{runtime}.writer") is None:
        pytest.skip(f"this effnet has no exporter to {runtime}")
    config, state = effnet.load(small_bundle).config, load_state(small_bundle)
    path = write_export(runtime, tmp_path, config, state)
    lines = run_example(f"{runtime}_only", path, *grey_images)
    expected = effnet.load(small_bundle).predict(grey_images, top=1)
    found = [(line.rpartition(": ")[0], *line.rpartition(": ")[2].rsplit(" ", 1)) for line in lines]
    assert [words[:2] for words in found] == [(str(p), e.label) for p, e in zip(grey_images, expected, strict=True)]
    shares = [float(words[2].rstrip("%")) / 100 for words in found]
    np.testing.assert_allclose(shares, [e.probabilities[0] for e in expected], atol=2e-3)


# That every example has a test of its own is checked by name.
test_executorch_only = test_openvino_only = test_litert_only = None
test_ray_serve = None  # tests/serving/test_serve_examples.py


@pytest.mark.elsewhere
def test_transfer_learning(run_example, small_bundle, tmp_path):
    lines = run_example("transfer_learning", "digits", "--weights", small_bundle, "--out", tmp_path / "out")
    assert [line.split()[0] for line in lines if "lowest" not in line] == ["head", "test", "calibration", "answers"]
    before = effnet.evaluate(effnet.load(small_bundle), effnet.read_dataset("digits").test).accuracy
    after = float(lines[1].split()[2].rstrip("%,")) / 100
    assert after >= before - 0.05  # its own weights, another head


def test_find_similar(run_example, tmp_path):
    bundle, folder, rng = make_bundle(tmp_path / "bundle"), tmp_path / "images", np.random.default_rng(0)
    effnet.export(bundle, features=True)
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(6)]
    for path in paths[:-1]:
        Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(path)
    paths[-1].write_bytes(b"damaged")
    left_out, *lines = run_example("find_similar", bundle, folder, paths[3], "--top", 2)
    assert left_out.startswith(f"left out: {paths[-1]}: ")
    vectors = effnet.load(bundle).embed(paths[:-1])
    cosines = vectors @ vectors[3]
    expected = np.argsort(-cosines)[:2]
    assert expected[0] == 3
    assert [line.split() for line in lines] == [[f"{cosines[i]:.3f}", str(paths[i])] for i in expected]


def test_wrong_labels(run_example, tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "images"
    for label, level in (("dark", 30), ("light", 180)):
        (root / label).mkdir(parents=True)
        for i in range(14):
            pixels = rng.integers(level, level + 60, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    (root / "light" / "0.png").rename(root / "dark" / "wrong.png")
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "new").mkdir()
    for i in range(6):
        pixels = rng.integers(100, 160, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "new" / f"{i}.png")
    first, error, *others = run_example("wrong_labels", root, bundle, tmp_path / "new")
    assert re.fullmatch(r"About [0-4]\.\d of 28 labels are wrong\.", first)
    assert error.endswith(f"{root / 'dark' / 'wrong.png'}: dark, likely light")
    assert len([line for line in others if line.startswith(f"label next: {tmp_path / 'new'}")]) == 5


def test_unlabelled(run_example, small_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    fit = functools.partial(effnet.fit, procedure=UNTIMED, max_macs=162_000)
    monkeypatch.setattr(effnet, "fit", fit)
    labelled = striped(tmp_path / "labelled", 90, seed=1, classes=True)
    more = striped(tmp_path / "more", 30, seed=2, classes=False)
    counts, *rounds, last = run_example("unlabelled", labelled, more, small_bundle, 1)
    assert counts == "30 images without a label; copies left out: 0"
    assert any("it is kept" in line or "it is discarded" in line or "are not used" in line for line in rounds)
    assert re.fullmatch(r"test accuracy [\d.]+%", last)
    assert (tmp_path / "with-unlabelled" / "config.json").is_file()


def test_pretrain(run_example, small_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(effnet, "fit", functools.partial(effnet.fit, procedure=UNTIMED, max_macs=162_000))
    labelled = striped(tmp_path / "labelled", 60, seed=1, classes=True)
    more = striped(tmp_path / "more", 30, seed=2, classes=False)
    probe, losses, last = run_example("pretrain", more, labelled, small_bundle, 2)
    assert re.fullmatch(r"linear probe: [\d.]+% before, [\d.]+% after; the new weights are (better|not .* kept)", probe)
    assert re.fullmatch(r"loss on held-out images: \S+, \S+", losses)
    assert re.fullmatch(r"test accuracy [\d.]+%", last)
    assert effnet.load(tmp_path / "fitted").config.class_names == ("columns", "plain", "rows")


def test_integrated_gradients(run_example, tmp_path):
    """Their sum is the class's value less that of the baseline: the completeness of integrated gradients."""
    pytest.importorskip("captum")
    import torch

    bundle, rng = make_bundle(tmp_path / "bundle"), np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / "cat.png")
    words = [bundle, tmp_path / "cat.png", "--steps", 100, "--out", tmp_path / "out.png"]
    told, _ = run_example("integrated_gradients", *words)
    name, total, error = re.fullmatch(r"(\d): attributions sum to ([-+.\d]+), error ([.\d]+)", told).groups()
    assert float(error) < 0.05 * max(1, abs(float(total)))
    module, preprocess = effnet.load_module(bundle), effnet.load(bundle).config.preprocess
    pixels = normalize(effnet.load(bundle).prepare(tmp_path / "cat.png")[None], preprocess)
    with torch.no_grad():
        here, there = (module(torch.from_numpy(given).permute(0, 3, 1, 2))[0] for given in (pixels, 0 * pixels))
    assert int(here.argmax()) == int(name)
    assert float(total) == pytest.approx(float((here - there)[int(name)]), abs=0.05 * max(1, abs(float(total))))
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.size == (16, 16)


def test_import_checkpoint(run_example, lite0_file, photos, tmp_path):
    import safetensors.torch
    import torch

    state = {f"net.{key}": value for key, value in safetensors.torch.load_file(lite0_file).items()}
    state |= {f"net.classifier.{part}": state[f"net.classifier.{part}"][:3].clone() for part in ("weight", "bias")}
    torch.save({"state_dict": state, "arch": "tf_efficientnet_lite0"}, tmp_path / "last.pth.tar")
    words = ["--classes", photos, "--data", photos, "--resolution", 32, "--out", tmp_path / "out"]
    lines = run_example("import_checkpoint", tmp_path / "last.pth.tar", *words)
    assert lines[0] == "the network is under state_dict.net."
    assert re.fullmatch(r"test accuracy [\d.]+%", lines[-2])
    assert (tmp_path / "out" / "model.fp16.onnx").is_file()


def test_pytorch_loop(run_example, photos, tmp_path):
    words = ["--model", "lite0", "--resolution", 32, "--epochs", 2, "--out", tmp_path / "out"]
    *epochs, last = run_example("pytorch_loop", photos, *words)
    assert [line.split(":")[0] for line in epochs] == ["epoch 1", "epoch 2"]
    accuracy = float(last.rpartition(" ")[2].rstrip("%")) / 100
    assert accuracy == pytest.approx(effnet.evaluate(effnet.load(tmp_path / "out"), photos).accuracy, abs=0.5)
    assert effnet.load(tmp_path / "out").config.preprocess.resolution == 32


@pytest.mark.elsewhere
def test_several_outputs(run_example, tmp_path, monkeypatch):
    monkeypatch.setattr(effnet, "fit", functools.partial(effnet.fit, procedure=UNTIMED))
    kind, faults, size, answers = run_example("several_outputs", tmp_path / "made")
    for line, higher in ((kind, True), (faults, True), (size, False)):
        value, baseline = (float(line.split()[i]) for i in (1, -1))
        assert (value > baseline + 0.2) if higher else (value < baseline / 2)
    assert answers.startswith("kind bright faults (")


def test_images_and_words(run_example, tmp_path):
    data, words = captioned.write_captioned(tmp_path / "data"), captioned.write_glove(tmp_path / "glove.txt")
    weights = captioned.write_backbone(tmp_path / "backbone")
    given = ["--words", words, "--weights", weights, "--classes", "red,blue,white", "--query", "blue shirt"]
    retrieval, *hits = run_example("images_and_words", data, *given, "--out", tmp_path / "out")
    assert re.fullmatch(r"own caption among the ten nearest of 29: (9\d|100)\.\d% \(random 34\.5%\)", retrieval)
    assert len(hits) == 5
    assert all(re.search(r"/blue-\w+-\d+\.png: blue$", line) for line in hits)
    assert (tmp_path / "out" / "page.html").is_file()
    assert effnet.load(tmp_path / "out" / "classifier").config.class_names == ("red", "blue", "white")


def test_classify_texts(run_example, tmp_path):
    colours = list(captioned.COLOURS)
    rows = [
        (f"number {n % 12} {colour} {noun}", noun) for n in range(8) for colour in colours for noun in captioned.NOUNS
    ]
    data = captioned.write_rows(tmp_path / "texts.csv", rows, header=("text", "label"))
    (line,) = run_example("classify_texts", data, "--words", captioned.write_glove(tmp_path / "glove.txt"))
    assert line == "100.0% of 24 texts are right; 50.0% by guessing"


def test_robustness(run_example, small_bundle, tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for number in range(10):
        (root / str(number)).mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(root / str(number) / f"{index}.png")
    lines = run_example("robustness", small_bundle, root, root)
    assert "mean corrupted accuracy" in lines[0]
    assert any(line.startswith("worst: ") for line in lines)
    assert any("network pgd within 1: " in line for line in lines)
    assert lines[-1] == f"{root}: no drift; changed: nothing"
