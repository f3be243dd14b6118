"""A bundle is not trusted: its files are checked, and each fault of a model is a one-line error that names its file."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from bundles import make_bundle
from onnx import TensorProto, helper

import effnet
from effnet.bundle.config import read_config, read_digests, write_digests
from effnet.bundle.weights import load_state
from effnet.data.datasets import Split
from effnet.errors import BundleError, InputError
from effnet.measurement.answers import predict_split
from effnet.runtimes.digests import check_digests, digests_of
from effnet.runtimes.ledger import read_ledger
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import write_export

SIDE = 16
UINT8, FLOAT, INT64 = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("made") / "bundle")
    config, state = read_config(folder), load_state(folder)
    for name in ("openvino", "litert"):
        write_export(name, folder, config, state)
    write_digests(folder, digests_of(folder, ["onnx", "openvino", "litert"]))
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bundle")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (20, 20, 1), dtype=np.uint8)


def answers(*values, kind=FLOAT, takes=UINT8, side=SIDE, more=(), external=""):
    """Return an ONNX model that gives `values` for any image; they may be stored in another file."""
    numbers = helper.make_tensor("numbers", kind, [1, len(values)], list(values))
    if external:
        numbers.ClearField("float_data")
        numbers.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", str(4 * len(values)))):
            numbers.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=kind),
        helper.make_node("ReduceMean", ["cast"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "numbers"], ["answer"]),
        *more,
    ]
    graph = helper.make_graph(
        nodes,
        "answers",
        [helper.make_tensor_value_info("image", takes, ["batch", side, side, 1])],
        [helper.make_tensor_value_info("last" if more else "answer", kind, ["batch", len(values)])],
        [numbers, helper.make_tensor("zero", kind, [1, 1], [0]), helper.make_tensor("shape", INT64, [2], [-1, 1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def replace_model(bundle, content):
    """Write another model.onnx, as an attacker would, who leaves no digest of the old one."""
    (bundle / "model.onnx").write_bytes(content)
    config = json.loads((bundle / "config.json").read_text())
    config.pop("sha256", None)
    (bundle / "config.json").write_text(json.dumps(config))


def refusal(bundle, image, **options):
    with pytest.raises(BundleError) as caught:
        effnet.load(bundle, **options).predict([image])
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = (0.1,) * 10


def test_the_model_that_the_others_are_made_of_is_fine(bundle, image):
    replace_model(bundle, answers(*GOOD))
    assert effnet.load(bundle).predict([image])[0].probabilities == pytest.approx(GOOD[:5])


@pytest.mark.parametrize(
    "content, message",
    [
        (answers(*[float("nan")] * 10), r"must return probabilities, from 0 to 1; it returned nan to nan"),
        (answers(float("inf"), *GOOD[1:]), r"from 0 to 1; it returned 0 to inf"),
        (answers(992.63, *[0.0] * 9), r"from 0 to 1; it returned 0 to 992\.6"),
        (answers(-0.1, 1.0, 0.1, *[0.0] * 7), r"from 0 to 1; it returned -0\.1 to 1"),
        (answers(0.5, 0.6, *[0.0] * 8), r"whose sum is 1; theirs lies in 1\.1\.\.1\.1"),
        (answers(*[0.0] * 10), r"whose sum is 1; theirs lies in 0\.\.0"),
        (answers(1, *[0] * 9, kind=INT64), r"float32 \[batch, \.\.\.\]; it maps uint8 .* to tensor\(int64\)"),
        (answers(*GOOD, takes=FLOAT), r"must map image, uint8 .* it maps float32 \[batch, 16, 16, 1\]"),
        (answers(*GOOD[:4]), r"to probabilities \[10\], as in config\.json; it maps .* to probabilities \[4\]"),
        (answers(*GOOD, side=9), r"must map image \[16, 16, 1\] .* it maps image \[9, 9, 1\]"),
        (answers(*GOOD, external="config.json"), r"must hold all of its weights; it refers to another file"),
        (answers(*GOOD, external="/etc/passwd"), r"must hold all of its weights; it refers to another file"),
        (b"no model", "ONNX Runtime cannot read"),
        (b"", "ONNX Runtime .*cannot read"),
    ],
)
def test_what_a_model_does_wrong_is_one_line_that_names_its_file(bundle, image, content, message):
    replace_model(bundle, content)
    found = refusal(bundle, image)
    assert str(bundle / "model.onnx") in found
    assert re.search(message, found), found


def test_a_model_that_fails_while_it_runs_is_one_line(bundle, image):
    far = helper.make_node("Constant", [], ["far"], value=helper.make_tensor("far", FLOAT, [1], [1000]))
    nodes = [
        far,
        helper.make_node("Add", ["mean", "far"], ["beyond"]),
        helper.make_node("Cast", ["beyond"], ["index"], to=INT64),
        helper.make_node("Gather", ["answer", "index"], ["last"]),  # there is no such row
    ]
    replace_model(bundle, answers(*GOOD, more=nodes))
    found = refusal(bundle, image)
    assert re.match(r"ONNX Runtime .*cannot run .*model\.onnx: ", found), found


def test_openvino_reads_no_onnx_under_another_name(bundle, image):
    (bundle / "model.xml").write_bytes(answers(*GOOD, external="config.json"))
    with pytest.raises(BundleError, match=r"an OpenVINO graph must be XML; .*model\.xml is not"):
        open_engine(bundle / "model.xml")
    replace_model(bundle, answers(*GOOD, external="config.json"))
    with pytest.raises(BundleError, match="must hold all of its weights"):
        open_engine(bundle / "model.onnx", runtime="openvino")


@pytest.mark.parametrize("format", ["onnx", "openvino", "litert"])
def test_no_images_give_no_rows_and_other_images_are_refused(bundle, format):  # noqa: A002
    model = effnet.load(bundle, format=format)
    assert model.predict([]) == []
    assert model.probabilities(np.empty((0, SIDE, SIDE, 1), np.uint8)).shape == (0, 10)
    for images in (np.zeros((1, SIDE, SIDE, 1)), np.zeros((1, 9, 9, 1), np.uint8), np.zeros((SIDE, SIDE, 1), np.uint8)):
        with pytest.raises(InputError, match=r"the model takes uint8 \[batch, 16, 16, 1\]; got"):
            model.probabilities(images)


@pytest.mark.parametrize("name", ["config.json", "model.onnx", "model.xml", "model.bin", "model.tflite"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling link"])
def test_only_regular_files_are_read(bundle, image, name, kind):
    path = bundle / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else bundle / "gone")
    format = {"model.xml": "openvino", "model.bin": "openvino", "model.tflite": "litert"}.get(name, "onnx")  # noqa: A001
    found = refusal(bundle, image, format=format)
    assert "is not a regular file" in found if kind != "dangling link" else "none" in found


def test_links_to_files_elsewhere_are_followed(bundle, image, tmp_path):
    # A hub's cache consists of them.
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in bundle.iterdir():
        (linked / path.name).symlink_to(path)
    assert effnet.load(linked).predict([image]) == effnet.load(bundle).predict([image])


@pytest.mark.parametrize(
    "format, file", [("onnx", "model.onnx"), ("openvino", "model.bin"), ("litert", "model.tflite")]
)
def test_another_file_than_the_one_that_was_put_there_is_told(bundle, image, format, file):  # noqa: A002
    assert read_digests(bundle).keys() == {"model.onnx", "model.xml", "model.bin", "model.tflite"}
    check_digests(bundle, format)
    content = bytearray((bundle / file).read_bytes())
    content[-1] ^= 1
    (bundle / file).write_bytes(content)
    found = refusal(bundle, image, format=format)
    assert f"{bundle / file} must have the SHA-256 in config.json (" in found
    assert found.endswith(f"write it again with `effnet export {bundle} --to {format}`")
    with pytest.raises(BundleError, match="must have the SHA-256 in"):
        check_digests(bundle, format)
    effnet.export(bundle, to=format)
    assert len(effnet.load(bundle, format=format).predict([image])) == 1


def test_a_model_of_another_resolution_is_told_before_an_image_is_read(bundle):
    config = json.loads((bundle / "config.json").read_text())
    config["preprocess"]["resolution"] = 3000
    (bundle / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"must map image \[3000, 3000, 1\]"):
        effnet.load(bundle).predict(iter([pytest.fail]))
    with pytest.raises(BundleError, match=r"must map image \[3000, 3000, 1\]"):
        predict_split(effnet.load(bundle), Split(sources=["no-such.png"], labels=np.zeros(1, np.int64)))


def test_what_is_known_of_exports_is_read_from_a_regular_file(bundle):
    os.mkfifo(bundle / "exports.json")
    assert read_ledger(bundle) == {}
