"""config.json: reading returns what was written, and any damage is a BundleError."""

import dataclasses
import hashlib
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs

from effnet.arch.catalog import get_spec
from effnet.bundle.config import (
    ModelConfig,
    read_config,
    read_digests,
    write_config,
    write_digests,
    write_text,
)
from effnet.bundle.names import CONFIG
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError
from effnet.runtimes.digests import digests_of

relaxed = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.just(10**400)
    | st.floats(allow_subnormal=False)  # which the runtime's threads flush to zero
    | st.text(max_size=4)
    | st.sampled_from(["silu", "center", "mbconv", "format"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def config(**changes):
    spec = get_spec("b0", num_classes=2)
    known = {"arch": spec, "preprocess": Preprocess(resolution=32), "class_names": ("a", "b")}
    return ModelConfig(**known | changes)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    write_config(config(versions={"effnet": "1"}, temperature=1.5, threshold=0.25), folder)
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


@relaxed
@given(
    spec=specs(),
    names=st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=1, max_size=5),
    temperature=st.floats(0.05, 20),
    threshold=st.none() | st.floats(0, 1, allow_subnormal=False),
)
def test_what_is_written_is_read_back(spec, names, temperature, threshold, tmp_path):
    half = (0.5,) * spec.in_channels
    written = ModelConfig(
        arch=dataclasses.replace(spec, num_classes=len(names)),
        preprocess=Preprocess(resolution=spec.resolution, mean=half, std=half),
        class_names=tuple(names),
        versions={"python": "3"},
        temperature=temperature,
        threshold=threshold,
    )
    write_config(written, tmp_path)
    assert read_config(tmp_path) == written


def places(data):
    """Yield every (container, key) within JSON data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield data, key
        yield from places(value)


def read_or_refuse(data, folder):
    (folder / CONFIG).write_text(json.dumps(data), encoding="utf-8")
    try:
        found = read_config(folder)
    except BundleError:
        return
    write_config(found, folder)  # an accepted value can be written again
    assert read_config(folder) == found


@relaxed
@given(data=st.data(), value=values)
def test_any_value_in_any_place_is_read_or_refused(data, value, good, tmp_path):
    changed = json.loads(json.dumps(good))
    every = list(places(changed))
    container, key = every[data.draw(st.integers(0, len(every) - 1))]
    container[key] = value
    read_or_refuse(changed, tmp_path)


@relaxed
@given(data=st.data(), extra=st.none() | st.text(max_size=5))
def test_a_key_that_is_absent_or_unknown_is_read_or_refused(data, extra, good, tmp_path):
    changed = json.loads(json.dumps(good))
    every = [place for place in places(changed) if isinstance(place[0], dict)]
    container, key = every[data.draw(st.integers(0, len(every) - 1))]
    value = container.pop(key)
    if extra is not None:
        container[extra] = value
    read_or_refuse(changed, tmp_path)


@relaxed
@given(data=values)
def test_any_json_is_refused(data, tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BundleError):
        read_config(tmp_path)


@relaxed
@given(data=st.binary(max_size=40))
def test_any_bytes_are_refused(data, tmp_path):
    (tmp_path / CONFIG).write_bytes(data)
    with pytest.raises(BundleError):
        read_config(tmp_path)


@relaxed
@given(data=st.data())
def test_a_truncated_file_is_refused(data, good, tmp_path):
    text = json.dumps(good)
    (tmp_path / CONFIG).write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(BundleError):
        read_config(tmp_path)


def test_nesting_without_end_is_refused(tmp_path):
    (tmp_path / CONFIG).write_text("[" * 100_000)
    with pytest.raises(BundleError, match="must be JSON: it is nested too deeply"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.touch(), lambda path: (path / CONFIG).mkdir(parents=True)]
)
def test_what_is_no_bundle_is_named(make, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(BundleError, match=r"a bundle is a folder with a config\.json; .*model has none"):
        read_config(tmp_path / "model")


def test_another_version_says_to_upgrade(good, tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(good | {"format": 3}))
    with pytest.raises(BundleError, match=r"reads the bundle formats 1 and 2; .* has 3: upgrade effnet"):
        read_config(tmp_path)


def test_the_first_format_has_neither_task_nor_outputs(good, tmp_path):
    first = {key: value for key, value in good.items() if key not in ("task", "outputs")} | {"format": 1}
    (tmp_path / CONFIG).write_text(json.dumps(first))
    found = read_config(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(good))
    assert found == read_config(tmp_path)
    assert found.task == "classification"


def test_it_declares_the_outputs_of_its_files(good, tmp_path):
    assert (good["format"], good["task"]) == (2, "classification")
    classes = len(good["class_names"])
    meaning = "the probability of each class"
    assert good["outputs"] == [{"name": "probabilities", "shape": [classes], "meaning": meaning}]
    arch = dataclasses.replace(config().arch, num_classes=0)
    (backbone,) = dataclasses.replace(config(), arch=arch, class_names=()).outputs
    assert (backbone.name, backbone.shape) == ("features", (arch.feature_channels,))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"task": "classificatoin"}, "a task must be one of classification, .*; .* did you mean 'classification'"),
        ({"task": 3}, "task must be the name of a task; got 3"),
        ({"outputs": []}, r"outputs must be those of the task classification, .*; got \[\]"),
    ],
)
def test_another_task_or_other_outputs_are_refused(change, said, good, tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(good | change))
    with pytest.raises(BundleError, match=said):
        read_config(tmp_path)


@pytest.mark.parametrize("names", [["a", "\ud800"], ["a", 1], "ab", {"a": 0, "b": 1}])
def test_class_names_are_texts(names, good, tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(good | {"class_names": names}))
    with pytest.raises(BundleError, match="class_names must be a list of texts"):
        read_config(tmp_path)


def test_a_bundle_of_before_has_temperature_1_and_no_threshold(good, tmp_path):
    data = {key: value for key, value in good.items() if key not in ("temperature", "threshold")}
    (tmp_path / CONFIG).write_text(json.dumps(data))
    assert read_config(tmp_path) == config(versions={"effnet": "1"}, temperature=1.0, threshold=None)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("temperature", 0, r"temperature must lie in 0\.0001..10000; got 0\.0"),
        ("temperature", -1.0, r"temperature must lie in 0\.0001..10000; got -1\.0"),
        ("temperature", float("nan"), "must be JSON: it must hold finite numbers; got NaN"),
        ("temperature", float("inf"), "must be JSON: it must hold finite numbers; got Infinity"),
        ("temperature", None, "temperature must be a number; got None"),
        ("temperature", True, "temperature must be a number; got True"),
        ("threshold", "0.5", "threshold must be a number; got '0.5'"),
        ("threshold", 1.5, "threshold must be a probability from 0 to 1, or null; got 1.5"),
        ("threshold", float("nan"), "must be JSON: it must hold finite numbers; got NaN"),
    ],
)
def test_temperature_and_threshold_are_numbers_that_can_be(key, value, message, good, tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(good | {key: value}))
    with pytest.raises(BundleError, match=message):
        read_config(tmp_path)


def test_outputs_and_class_names_must_be_as_many():
    with pytest.raises(BundleError, match="a model with 2 outputs needs as many class names; got 3"):
        config(class_names=("a", "b", "c"))


def test_network_and_preprocessing_must_have_the_same_channels():
    with pytest.raises(BundleError, match="the network takes 3 channels but preprocessing outputs 1"):
        config(preprocess=Preprocess(resolution=32, mean=(0.5,), std=(0.5,)))


def test_a_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old é\n")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_bytes() == "old é\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_class_name_of_a_page_is_refused():
    with pytest.raises(BundleError, match="a class name must have at most 1,000 characters; got 1,001"):
        config(class_names=("a", "b" * 1_001))


def test_any_huge_integer_is_one_short_line(good, tmp_path):
    for container, key in list(places(good)):
        before = container[key]
        if type(before) is int:
            for value in (10**9, -(10**9), 2**63, 10**30):
                container[key] = value
                (tmp_path / CONFIG).write_text(json.dumps(good))
                if key == "split_seed" and 0 <= value < 2**63:  # it takes no memory
                    continue
                with pytest.raises(BundleError, match=r"^.{1,400}$"):
                    read_config(tmp_path)
            container[key] = before


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with open(tmp_path / CONFIG, "wb") as file:
        file.truncate(10**10)
    with pytest.raises(BundleError, match="none that can be read: it must have at most 32,000,000 bytes"):
        read_config(tmp_path)


def test_digests_are_those_of_the_files_that_lie_there(tmp_path):
    write_config(config(), tmp_path)
    assert read_digests(tmp_path) == {}
    for name in ("model.onnx", "model.xml", "model.bin"):
        (tmp_path / name).write_bytes(name.encode())
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("model.bin", "model.onnx", "model.xml")}
    assert digests_of(tmp_path, ["onnx", "openvino", "litert"]) == expected
    assert digests_of(tmp_path, ["onnx"]).keys() == {"model.onnx"}
    write_digests(tmp_path, expected)
    assert read_digests(tmp_path) == expected
    assert read_config(tmp_path) == config()
    write_digests(tmp_path, {})
    assert read_digests(tmp_path) == {}


@pytest.mark.parametrize("digests", [3, ["a"], {"model.onnx": 1}, "model.onnx"])
def test_digests_are_texts(digests, good, tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(good | {"sha256": digests}))
    with pytest.raises(BundleError, match="sha256 must be a JSON object of texts; got"):
        read_digests(tmp_path)
