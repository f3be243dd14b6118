"""export to several formats: each verified, kept or refused separately, and recorded in exports.json."""

import json
import os
import shutil

import numpy as np
import pytest
from bundles import assert_files_are_known, make_bundle
from PIL import Image

import effnet
from effnet.bundle.config import read_config, read_digests, write_digests
from effnet.bundle.names import CONFIG, PROOF
from effnet.errors import BundleError, DataError, EffnetError, InputError, MissingExtraError
from effnet.jobs.export import api as job
from effnet.jobs.export.api import export_each
from effnet.measurement.sample import gather
from effnet.runtimes.digests import digests_of
from effnet.runtimes.installed import missing
from effnet.runtimes.ledger import LEDGER, Entry, digest_of, read_ledger, record
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import FORMATS, find_format
from effnet.runtimes.write import Quantization
from effnet.weights.labels import choose_images

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("targets") / "bundle")


@pytest.fixture
def bundle(plain, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(plain, tmp_path / "bundle")


@pytest.fixture(scope="module")
def in_openvino(plain, tmp_path_factory):
    """A bundle that was exported once; do not change it."""
    folder = shutil.copytree(plain, tmp_path_factory.mktemp("targets") / "bundle")
    effnet.export(folder, to="openvino")
    return folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_several_formats_are_written_checked_scored_and_remembered(bundle):
    found = effnet.export(bundle, to=["onnx", "openvino", "openvino-int8"], data="digits", images=16, max_drop=1)
    assert list(found) == ["onnx", "openvino", "openvino-int8"]
    split = choose_images("digits", folder=bundle, config=read_config(bundle), part="test").split
    for name, exported in found.items():
        target, entry = find_format(name), read_ledger(bundle)[name]
        predictor = Predictor(bundle, format=name)
        rows = predictor.probabilities(np.stack([predictor.prepare(image) for image in split.sources]))
        assert exported.accuracy == (rows.argmax(1) == split.labels).mean()
        assert (exported.scored, exported.check.images, exported.random) == (269, 64, False)
        assert exported.size_bytes == sum((bundle / f).stat().st_size for f in (target.file, *target.others))
        assert (entry.accuracy, entry.scored, entry.checked) == (exported.accuracy, 269, 64)
        assert entry.agreement == exported.check.agreement
        assert entry.size_bytes == exported.size_bytes
    assert found["openvino"].check.max_difference < 1e-4
    calibration = read_ledger(bundle)["openvino-int8"].calibration
    assert calibration == {"images": 16, "method": "minmax", "bias_correction": "fast", "float_layers": []}
    assert read_ledger(bundle)["openvino"].calibration == {}
    assert {"effnet", "openvino", "nncf"} <= set(read_ledger(bundle)["openvino-int8"].versions)


def test_one_format_gives_its_check(bundle):
    found = effnet.export(bundle, to="openvino")
    assert (found.images, found.agreement) == (64, 1.0)
    assert read_ledger(bundle)["openvino"].random


def test_an_export_predicts_where_it_is_asked_for(bundle):
    effnet.export(bundle, to="openvino")
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 1), dtype=np.uint8)
    (expected,), (found,) = (
        effnet.load(bundle).predict([image]),
        effnet.load(bundle, format="openvino").predict([image]),
    )
    assert found.labels == expected.labels
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_threads_may_share_a_predictor_whose_runtime_takes_one_call_at_a_time(bundle):
    from concurrent.futures import ThreadPoolExecutor

    effnet.export(bundle, to="openvino")
    predictor = effnet.load(bundle, format="openvino")
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 16, 16, 1), dtype=np.uint8)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(predictor.probabilities, images))
    expected = effnet.load(bundle).probabilities(images.reshape(-1, 16, 16, 1))
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


def test_calibration_takes_training_images_the_same_each_time(plain):
    config = read_config(plain)
    first, second = (gather(config, "digits", folder=plain, calibrated=24).calibration for _ in range(2))
    np.testing.assert_array_equal(first, second)
    train, test = (choose_images("digits", folder=plain, config=config, part=part).split for part in ("train", "test"))
    predictor = Predictor(plain)
    known = {predictor.prepare(image).tobytes() for image in train.sources}
    held_out = {predictor.prepare(image).tobytes() for image in test.sources} - known
    assert all(image.tobytes() in known for image in first)
    assert held_out
    assert not any(image.tobytes() in held_out for image in first)


def test_int8_needs_images_of_the_models_classes(bundle, tiny_images, tmp_path):
    before = contents(bundle)
    with pytest.raises(InputError, match=r"int8 is calibrated on training images; give .* --data DATA"):
        effnet.export(bundle, to="openvino-int8")
    with pytest.raises(DataError, match="the model has no class 'dark'"):
        effnet.export(bundle, to="openvino-int8", data=tiny_images)
    with pytest.raises(DataError, match="images of at least two classes; the 1 drawn are all of '"):
        effnet.export(bundle, to="openvino-int8", data="digits", images=1)
    (tmp_path / "one" / "7").mkdir(parents=True)
    for number in range(9):
        Image.new("L", (8, 8), 20 * number).save(tmp_path / "one" / "7" / f"{number}.png")
    with pytest.raises(DataError, match="at least two classes are needed"):
        effnet.export(bundle, to="openvino-int8", data=tmp_path / "one")
    assert contents(bundle) == before


def test_images_of_other_classes_check_but_do_not_score(bundle, tiny_images):
    (found,) = effnet.export(bundle, to=["onnx"], data=tiny_images).values()
    assert (found.check.images, found.random, found.accuracy) == (60, False, None)
    assert found.unscored.startswith("the model has no class 'dark'")


@pytest.mark.parametrize("to, reason", [("onyx", "did you mean 'onnx'"), ("", "must be one of"), ([], "at least one")])
def test_a_format_that_does_not_exist_is_named(to, reason, bundle):
    with pytest.raises(InputError, match=reason):
        effnet.export(bundle, to=to)


def test_a_runtime_that_is_not_installed_is_named_before_any_work(bundle, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert missing("onnxruntime") is None
    before = contents(bundle)
    with pytest.raises(MissingExtraError, match=r'needs openvino, .* pip install "effnet\[openvino\]"'):
        effnet.export(bundle, to=["onnx", "openvino"])
    assert contents(bundle) == before


def test_a_format_that_fails_does_not_stop_the_others_and_keeps_its_old_file(bundle, monkeypatch):
    effnet.export(bundle, to="openvino")
    before = contents(bundle)
    monkeypatch.setattr("effnet.measurement.verify.TOLERANCE", -1.0)
    found = dict(export_each(bundle, ["openvino", "openvino-fp16"]))
    assert isinstance(found["openvino"], EffnetError)
    assert found["openvino-fp16"].check.agreement == 1
    after = contents(bundle)
    lists = (LEDGER, CONFIG, PROOF)  # of the exports, which have one more
    assert {n: after[n] for n in before if n not in lists} == {n: b for n, b in before.items() if n not in lists}
    assert_files_are_known(bundle, but=("model.onnx",))
    assert set(read_ledger(bundle)) == {"openvino", "openvino-fp16"}
    assert not [path for path in bundle.iterdir() if path.name.startswith(".")]


# Of the twelve renames of an export to OpenVINO, the last six are in the bundle.
@pytest.mark.parametrize("which", [1, 4, 6, 7, 8, 9, 10, 11])
def test_a_full_disk_leaves_what_was_there(which, in_openvino, tmp_path, monkeypatch):
    bundle = shutil.copytree(in_openvino, tmp_path / "bundle")
    before, calls, replace = contents(bundle), [], os.replace

    def full(*paths):
        calls.append(paths)
        if len(calls) == which + 1:
            raise OSError(28, "No space left on device")
        return replace(*paths)

    monkeypatch.setattr(job.os, "replace", full)
    with pytest.raises(InputError, match=r"written to .*bundle: No space left on device; the files there"):
        effnet.export(bundle, to="openvino")
    assert len(calls) > which
    assert contents(bundle) == before


@pytest.mark.parametrize("which", [6, 7, 8, 9, 10, 11])
def test_a_process_that_ends_amidst_leaves_no_digest_of_another_file(which, in_openvino, tmp_path, monkeypatch):
    bundle = shutil.copytree(in_openvino, tmp_path / "bundle")
    (bundle / "model.xml").write_bytes(b"of before")
    write_digests(bundle, digests_of(bundle, ["onnx", "openvino"]))
    calls, replace = [], os.replace

    def ends(*paths):
        calls.append(paths)
        if len(calls) == which + 1:
            raise KeyboardInterrupt  # like a kill, it undoes nothing
        return replace(*paths)

    monkeypatch.setattr(job.os, "replace", ends)
    with pytest.raises(KeyboardInterrupt):
        effnet.export(bundle, to="openvino")
    assert digests_of(bundle, ["onnx", "openvino"]).items() >= read_digests(bundle).items()
    assert read_config(bundle) == read_config(in_openvino)


def test_a_disk_that_is_full_while_writing_is_told(bundle, monkeypatch):
    before = contents(bundle)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "write_export", full)
    with pytest.raises(InputError, match="No space left on device; the files there are unchanged"):
        effnet.export(bundle)
    assert contents(bundle) == before


def test_a_folder_that_cannot_be_written_to_is_named(bundle, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"exports could not be written to .*file: "):
        effnet.export(bundle, out=tmp_path / "file")

    def read_only(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(job.tempfile, "TemporaryDirectory", read_only)
    with pytest.raises(InputError, match=r"written to .*bundle: Permission denied; .* another --out"):
        effnet.export(bundle)


def test_another_folder_becomes_one_that_predicts(bundle, tmp_path):
    before, out = contents(bundle), tmp_path / "device"
    effnet.export(bundle, to="openvino", out=out)
    assert contents(bundle) == before
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "exports.json",
        "model.bin",
        "model.xml",
        "proof.json",
        "split.json",
    }
    assert effnet.load(out).format.name == "openvino"
    image = np.zeros((8, 8, 1), np.uint8)
    assert effnet.load(out).predict([image])[0].labels == effnet.load(bundle).predict([image])[0].labels
    effnet.export(bundle, out=out)
    assert set(read_ledger(out)) == {"onnx", "openvino"}
    make_bundle(tmp_path / "other", class_names=("a", "b"))
    with pytest.raises(InputError, match="must be new or hold exports of this bundle"):
        effnet.export(bundle, out=tmp_path / "other")


def test_what_is_known_of_a_file_that_changed_is_forgotten(bundle):
    effnet.export(bundle, to=["onnx", "openvino"])
    assert set(read_ledger(bundle)) == {"onnx", "openvino"}
    with open(bundle / "model.bin", "ab") as file:
        file.write(b"more")
    assert set(read_ledger(bundle)) == {"onnx"}
    (bundle / "model.onnx").unlink()
    assert read_ledger(bundle) == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2, "exports": {}}', '{"format": 1, "exports": {"onnx": 3}}']
)
def test_a_damaged_ledger_knows_nothing_and_is_written_anew(text, bundle):
    (bundle / LEDGER).write_text(text)
    assert read_ledger(bundle) == {}
    effnet.export(bundle)
    assert list(read_ledger(bundle)) == ["onnx"]


@pytest.mark.parametrize(
    "change", [{"accuracy": "all"}, {"accuracy": 99.0}, {"agreement": [1]}, {"scored": -1}, {"checked": 1.5}]
)
def test_numbers_that_cannot_be_are_unknown(change, bundle):
    entry = Entry(digest=digest_of(bundle, find_format("onnx")), size_bytes=9, accuracy=0.5, scored=3)
    record(bundle, "onnx", entry)
    assert read_ledger(bundle) == {"onnx": entry}
    data = json.loads((bundle / LEDGER).read_text())
    data["exports"]["onnx"] |= change
    (bundle / LEDGER).write_text(json.dumps(data))
    assert read_ledger(bundle) == {}


def test_a_ledger_keeps_every_field(bundle):
    entry = Entry(
        digest=digest_of(bundle, FORMATS["onnx"]), size_bytes=3, checked=5, random=False, max_difference=0.25,
        agreement=0.5, scored=7, accuracy=0.75, judged=9, drop=-0.25, calibration={"images": 3}, versions={"onnx": "1"},
    )  # fmt: skip
    record(bundle, "onnx", entry)
    assert read_ledger(bundle) == {"onnx": entry}
    assert json.loads((bundle / LEDGER).read_text())["exports"]["onnx"]["accuracy"] == 0.75


def test_a_folder_counts_as_a_file(tmp_path):
    target = find_format("coreml")
    (tmp_path / "model.mlpackage" / "Data").mkdir(parents=True)
    assert digest_of(tmp_path, target)
    first = digest_of(tmp_path, target)
    (tmp_path / "model.mlpackage" / "Data" / "weights").write_bytes(b"1")
    assert digest_of(tmp_path, target) not in (first, None)
    assert digest_of(tmp_path, find_format("onnx")) is None


def test_quantization_of_a_layer_that_is_none_is_refused(bundle):
    settings = Quantization(float_layers=("stages.0.0.depthwise.norm",))
    with pytest.raises(InputError, match="must be a convolution or a linear layer"):
        effnet.export(bundle, to="openvino-int8", data="digits", images=8, quantization=settings)


def test_a_bundle_without_weights_is_named(bundle):
    (bundle / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"must contain model\.safetensors"):
        effnet.export(bundle, to="openvino")
