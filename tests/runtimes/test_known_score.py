"""The score that says "unknown" as an output of ONNX files: numpy's, in floats, and what a predictor does with it."""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import make_bundle

import effnet
from effnet.bundle.config import read_config, write_config
from effnet.bundle.names import ONNX, SCORE_ARRAYS
from effnet.bundle.weights import load_state
from effnet.cli.deploy.export import in_words
from effnet.data.datasets import read_dataset
from effnet.errors import BundleError
from effnet.jobs.export.api import export_each
from effnet.measurement.classification.score import evaluate_split
from effnet.measurement.known.scores import fit_score, score_values
from effnet.runtimes.installed import missing
from effnet.runtimes.onnxruntime.graph import expose
from effnet.runtimes.onnxruntime.known import rewrite_with_score
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.registry import FORMATS
from effnet.runtimes.write import write_export
from effnet.tasks.known import ARRAYS, SCORE, SUMMED, score_macs
from effnet.training.transfer.features import extract, make_extractor

METHODS = tuple(ARRAYS)


@pytest.fixture(scope="module")
def images():
    """Prepared images of digits, [64, 16, 16, 1]."""
    digits = read_dataset("digits").test
    return np.stack([np.kron(source, np.ones((2, 2, 1), np.uint8)) for source in map(_grey, digits.sources[:64])])


def _grey(source):
    return source if source.ndim == 3 else source[..., None]


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A folder, and the scores of a bundle in it, fitted on its own features of the digits."""
    root = tmp_path_factory.mktemp("known")
    folder = make_bundle(root / "plain")
    config, state = read_config(folder), load_state(folder)
    extractor = make_extractor(config.arch, state, config.preprocess, root / "backbone.onnx")
    split = read_dataset("digits").val
    found = extract(extractor, split, folder=root)
    labels = split.labels[found.indices]
    scales = dict.fromkeys(SUMMED, (0.5, 2.0))
    return folder, {method: fit_score(method, found.values, labels, scales=scales) for method in METHODS}


def scored(known, tmp_path, method, *, threshold=None, name=ONNX, images=None):
    """Write a bundle with a score in a format, and return its folder and config."""
    folder, scores = known
    score = dataclasses.replace(scores[method], threshold=threshold)
    config, state = dataclasses.replace(read_config(folder), known=score), load_state(folder)
    write_config(config, tmp_path)
    export_onnx(tmp_path, config, state)
    if name != ONNX:
        write_export(name, tmp_path, config, state, images=images)
    return tmp_path, config, state


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["onnx", "onnx-fp16", "onnx-w8", "onnx-int8"])
def test_the_score_in_the_file_is_numpys_of_what_its_last_layer_reads(known, images, tmp_path, method, name):
    folder, config, _ = scored(known, tmp_path, method, name=name, images=images)
    path = folder / ("model.onnx" if name == "onnx" else f"model.{name.removeprefix('onnx-')}.onnx")
    model = onnx.load_model_from_string(path.read_bytes())
    last = next(node for node in model.graph.node if node.op_type == "Gemm" and node.input[1] == "classifier.weight")
    session = onnxruntime.InferenceSession(expose(model, [*last.input, SCORE]), providers=["CPUExecutionProvider"])
    features, weight, bias, values = session.run(None, {"image": images})
    weight, bias = config.temperature * weight.astype(np.float64), config.temperature * bias.astype(np.float64)
    expected = score_values(config.known, features, weight, bias, temperature=config.temperature)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-4, atol=1e-4)
    assert effnet.load(folder, format=name).scores(images) == pytest.approx(values[:, 0], abs=1e-6)
    kinds = {constant.name: constant.data_type for constant in model.graph.initializer}
    assert not [each for each, kind in kinds.items() if each.startswith(f"{SCORE}.") and kind in (2, 3)]  # uint8, int8


def test_a_file_with_a_score_answers_as_the_one_without(known, images, tmp_path):
    plain, _ = known
    for method in METHODS:
        folder, _, _ = scored(known, tmp_path, method)
        model = effnet.load(folder)
        assert model.scored
        np.testing.assert_array_equal(model.outputs(images), effnet.load(plain).outputs(images))
        assert model.outputs(images, scored=True).shape == (len(images), 11)
        assert model.outputs(images[:0], scored=True).shape == (0, 11)


def test_below_the_threshold_the_answer_is_unknown_and_a_given_probability_decides_instead(known, images, tmp_path):
    folder, config, state = scored(known, tmp_path, "energy")
    values = effnet.load(folder).scores(np.stack([effnet.load(folder).prepare(image) for image in images]))
    least = float(np.median(values))
    config = dataclasses.replace(config, known=dataclasses.replace(config.known, threshold=least), threshold=0.9)
    write_config(config, folder)
    export_onnx(folder, config, state)
    model = effnet.load(folder)
    answers = model.predict(images)
    assert [answer.known for answer in answers] == (values >= least).tolist()
    assert {answer.label for answer in answers if not answer.known} == {"unknown"}
    assert [answer.known for answer in model.predict(images, threshold=0.2)] == [
        answer.probabilities[0] >= 0.2 for answer in answers
    ]
    session = onnxruntime.InferenceSession(folder / ONNX)
    assert json.loads(session.get_modelmeta().custom_metadata_map["known"]) == {"method": "energy", "threshold": least}
    assert [output.name for output in session.get_outputs()] == ["probabilities", SCORE]


def test_evaluate_rejects_by_the_score_and_names_it(known, tmp_path, tiny_images):
    folder, _, _ = scored(known, tmp_path, "knn", threshold=0.5)
    split = read_dataset("digits").test
    found = evaluate_split(effnet.load(folder), split, unknown_from=tiny_images)
    pixels = np.stack([effnet.load(folder).prepare(source) for source in split.sources])
    values = effnet.load(folder).scores(pixels)
    assert found.answered.coverage == pytest.approx((values >= 0.5).mean())
    assert found.answered.score == read_config(folder).known.title
    assert found.unknown.probability_auroc is not None


def test_a_bundle_keeps_its_score_and_its_arrays(known, tmp_path):
    for method in METHODS:
        folder, config, _ = scored(known, tmp_path, method, threshold=-1.5)
        found = read_config(folder)
        assert found.known == config.known
        assert set(found.known.arrays) == set(ARRAYS[method])
        for name, array in found.known.arrays.items():
            np.testing.assert_array_equal(array, config.known.arrays[name])
        assert (folder / SCORE_ARRAYS).exists() == bool(ARRAYS[method])
    write_config(dataclasses.replace(found, known=None), folder)
    assert not (folder / SCORE_ARRAYS).exists()
    assert read_config(folder).known is None


def test_a_bundle_predicts_without_the_arrays_but_cannot_be_exported(known, images, tmp_path):
    folder, _, state = scored(known, tmp_path, "mahalanobis", threshold=-5.0)
    before = effnet.load(folder).scores(images)
    (folder / SCORE_ARRAYS).unlink()
    np.testing.assert_array_equal(effnet.load(folder).scores(images), before)
    with pytest.raises(BundleError, match=r"needs its arrays, which known\.safetensors of a bundle holds"):
        export_onnx(folder, read_config(folder), state)
    (folder / SCORE_ARRAYS).write_bytes(b"no arrays")
    with pytest.raises(BundleError, match=r"known\.safetensors must hold the arrays of the score mahalanobis"):
        read_config(folder)


def test_a_file_that_lacks_the_score_of_the_config_is_refused(known, tmp_path):
    folder, config, state = scored(known, tmp_path, "react")
    export_onnx(folder, dataclasses.replace(config, known=None), state)
    with pytest.raises(BundleError, match=r"model\.onnx must return the score of config\.json, react, as known"):
        _ = effnet.load(folder).engine
    rewrite_with_score(folder / ONNX, config)
    assert effnet.load(folder).scored


@pytest.mark.parametrize(
    "value, message",
    [
        ("energy", "known must be null, or a method and a threshold"),
        ({"method": "luck"}, "the method of known must be one of energy, react, knn, mahalanobis, sum; got 'luck'"),
        ({"method": "energy", "threshold": "high"}, "the threshold of known must be a number"),
    ],
)
def test_a_damaged_config_is_refused(known, tmp_path, value, message):
    folder, _, _ = scored(known, tmp_path, "energy")
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"known": value}))
    with pytest.raises(BundleError, match=message):
        read_config(folder)


def test_other_runtimes_answer_by_the_largest_probability(known, images, tmp_path):
    pytest.importorskip("ai_edge_litert")
    folder, config, state = scored(known, tmp_path, "energy", threshold=1e6)  # everything is unknown
    config = dataclasses.replace(config, threshold=0.15)
    write_config(config, folder)
    write_export("litert", folder, config, state)
    model = effnet.load(folder, format="litert")
    assert not model.scored
    assert [answer.known for answer in model.predict(images)] == (model.outputs(images).max(1) >= 0.15).tolist()
    np.testing.assert_array_equal(model.scores(images), model.outputs(images).max(1))


def test_the_multiply_accumulates_are_those_of_the_matrices_in_the_file(known, tmp_path):
    for method in METHODS:
        folder, config, _ = scored(known, tmp_path, method)
        model = onnx.load(folder / ONNX)
        sizes = {constant.name: int(np.prod(constant.dims)) for constant in model.graph.initializer}
        made = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in ("Cast", "Transpose")}
        total = 0
        for node in model.graph.node:
            if node.output[0].startswith(SCORE) and node.op_type in ("MatMul", "Gemm"):
                name = node.input[1]
                while name in made:
                    name = made[name]
                total += sizes[name] if name != f"{SCORE}.column" else 0  # four numbers
        channels = config.arch.feature_channels
        assert score_macs(config.known, classes=10, channels=channels) == total


def test_exports_keep_the_score_or_say_that_they_cannot(known, tmp_path):
    names = [name for name in ("onnx-fp16", "litert") if missing(FORMATS[name].runtime) is None]
    folder = shutil.copytree(known[0], tmp_path / "copy")
    scored(known, folder, "energy", threshold=0.5)
    lines = {name: in_words(found) for name, found in export_each(folder, names)}
    assert "cannot return the score" not in lines["onnx-fp16"]
    for line in [lines[name] for name in names[1:]]:
        assert "cannot return the score 'known': the largest probability says" in line
    assert effnet.load(folder, format="onnx-fp16").scored
