"""Features of a frozen backbone: those of the eager network, whatever the cache holds and whoever computes them."""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from strategies import build_trained, state_arrays

import effnet
from effnet.arch.lineage import Lineage
from effnet.data.datasets import Split, read_dataset
from effnet.data.preprocess import Preprocess, normalize
from effnet.data.shards.write import write_shards
from effnet.errors import DataError
from effnet.training.input.batches import eval_batches
from effnet.training.transfer import features as module
from effnet.training.transfer.features import extract, make_extractor

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 32
MEAN, STD = (0.485, 0.456, 0.406, 0.3), (0.229, 0.224, 0.225, 0.4)
TOLERANCE = 1e-4


def spec_of(channels=3, *, phi=-20, resolution=SIDE):
    return effnet.scale(effnet.get_spec("b0", num_classes=3, in_channels=channels), phi=phi, resolution=resolution)


def preprocess_for(channels=3, **changes):
    return Preprocess(**{"resolution": SIDE, "mean": MEAN[:channels], "std": STD[:channels], **changes})


@pytest.fixture(scope="module")
def networks():
    return {channels: build_trained(spec_of(channels), resolution=SIDE) for channels in (1, 3, 4)}


@pytest.fixture
def extractor(networks, tmp_path):
    """Return a factory of extractors, by default for the RGB network."""

    def make(channels=3, *, state=None, spec=None, mirror=True, **changes):
        network = networks[channels]
        return make_extractor(
            spec or network.spec,
            state or state_arrays(network),
            preprocess_for(channels, **changes),
            tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx",
            mirror=mirror,
        )

    return make


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twenty files of many sizes with random pixels, as a split; do not change them."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = []
    for number in range(20):
        size = rng.integers(20, 70, 2)
        small = rng.integers(0, 256, (*(size // 4 + 1), 3), dtype=np.uint8)
        path = folder / f"{number:02}.{('png', 'jpg', 'bmp')[number % 3]}"
        Image.fromarray(small).resize(tuple(int(s) for s in size), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return Split(sources=tuple(paths), labels=np.arange(20) % 3)


@torch.no_grad()
def eager(network, images, preprocess):
    """Return the eager network's features of uint8 images [N, R, R, C]."""
    headless = effnet.build(dataclasses.replace(network.spec, num_classes=0)).eval()
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("classifier")}
    headless.load_state_dict(state)
    return headless(torch.from_numpy(normalize(images, preprocess)).permute(0, 3, 1, 2)).numpy()


def check_close(found, expected):
    """Check equality up to float rounding, which grows with the numbers."""
    largest = np.abs(expected).max()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * largest
    assert expected.std() > 100 * TOLERANCE * largest  # or the comparison would prove nothing


def as_evaluated(split, preprocess):
    return np.concatenate([images for images, _ in eval_batches(split, preprocess)])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("changes", [{}, {"crop": 1.0, "mode": "squash", "interpolation": "bilinear"}])
def test_view_0_gives_the_eager_networks_features_of_what_evaluation_sees(
    networks, extractor, photos, tmp_path, channels, changes
):
    found = extract(extractor(channels, **changes), photos, folder=tmp_path)
    preprocess = preprocess_for(channels, **changes)
    expected = eager(networks[channels], as_evaluated(photos, preprocess), preprocess)
    check_close(found.values, expected)
    assert found.values.dtype == np.float32
    assert found.indices.tolist() == list(range(20))
    assert found.computed == 20


@pytest.mark.parametrize("channels, stored", [(1, 1), (3, 3), (4, 4), (3, 1), (1, 3)])
def test_arrays_in_memory_do_as_well_as_files(networks, extractor, tmp_path, channels, stored):
    arrays = np.random.default_rng(1).integers(0, 256, (5, 40, 36, stored), dtype=np.uint8)
    split = Split(sources=list(arrays), labels=np.zeros(5, np.int64))
    found = extract(extractor(channels), split, folder=tmp_path)
    preprocess = preprocess_for(channels)
    expected = eager(networks[channels], as_evaluated(split, preprocess), preprocess)
    check_close(found.values, expected)


def test_another_resolution_than_the_networks_own(networks, extractor, photos, tmp_path):
    found = extract(extractor(resolution=49), photos, folder=tmp_path)
    preprocess = preprocess_for(resolution=49)
    expected = eager(networks[3], as_evaluated(photos, preprocess), preprocess)
    check_close(found.values, expected)


class Sessions:
    """Count the images that go through ONNX Runtime."""

    def __init__(self, monkeypatch):
        self.opened, self.images, opener = 0, 0, module.open_session

        def open_session(path, *, threads):
            self.opened += 1
            session = opener(path, threads=threads)

            class Counting:
                def run(_, names, inputs):
                    self.images += sum(len(images) for images in inputs.values())
                    return session.run(names, inputs)

            return Counting()

        monkeypatch.setattr(module, "open_session", open_session)


def test_cached_features_are_the_same_and_cost_no_session(extractor, photos, tmp_path, monkeypatch):
    one, sessions = extractor(), Sessions(monkeypatch)
    first = extract(one, photos, folder=tmp_path)
    assert (sessions.opened, sessions.images) == (1, 20)
    again = extract(one, photos, folder=tmp_path)
    assert (sessions.opened, sessions.images) == (1, 20)
    assert (first.computed, again.computed) == (20, 0)
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.indices, again.indices)


def test_only_what_is_new_is_computed(extractor, photos, tmp_path, monkeypatch):
    one, sessions = extractor(), Sessions(monkeypatch)
    whole = extract(one, photos, folder=tmp_path / "whole")
    some = Split(sources=photos.sources[5:9], labels=photos.labels[5:9])
    assert extract(one, some, folder=tmp_path / "some").computed == 4
    rest = extract(one, photos, folder=tmp_path / "some")
    assert rest.computed == 16
    assert sessions.images == 40
    np.testing.assert_allclose(rest.values, whole.values, rtol=0, atol=1e-5)


def test_equal_images_are_computed_once(extractor, photos, tmp_path, monkeypatch):
    sessions = Sessions(monkeypatch)
    twice = Split(sources=photos.sources[:6] * 3, labels=np.zeros(18, np.int64))
    found = extract(extractor(), twice, folder=tmp_path)
    assert (found.computed, sessions.images, len(found.values)) == (6, 6, 18)
    assert np.array_equal(found.values[:6], found.values[6:12])


def test_a_damaged_cache_and_a_folder_that_cannot_be_used_change_nothing(extractor, photos, tmp_path):
    one = extractor()
    expected = extract(one, photos, folder=tmp_path).values
    (tmp_path / "features.sqlite").write_bytes(b"damaged" * 1000)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "file"):
        found = extract(one, photos, folder=folder)
        assert found.computed == 20
        assert np.array_equal(found.values, expected)
    assert extract(one, photos, folder=tmp_path).computed == 0


def test_the_cache_keeps_the_limit_it_is_given(extractor, photos, tmp_path):
    expected = extract(extractor(), photos, folder=tmp_path / "large").values
    found = extract(extractor(), photos, folder=tmp_path, limit_bytes=20_000)
    assert np.array_equal(found.values, expected)
    assert (tmp_path / "features.sqlite").stat().st_size <= 20_000


def test_features_are_kept_in_effnets_own_folder(extractor, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    extract(extractor(), photos)
    assert extract(extractor(), photos, folder=tmp_path / "cache").computed == 0


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("view", [0, 2])
def test_features_depend_neither_on_the_workers_nor_on_the_order(
    extractor, photos, tmp_path, monkeypatch, workers, view
):
    one = extractor()
    expected = extract(one, photos, view=view, folder=tmp_path / "expected").values
    monkeypatch.setattr(module, "usable_cores", lambda: workers)
    order = np.random.default_rng(0).permutation(20)
    other = Split(sources=[photos.sources[i] for i in order], labels=photos.labels[order])
    found = extract(one, other, view=view, folder=tmp_path / "found")
    np.testing.assert_allclose(found.values, expected[order], rtol=0, atol=1e-5)


def test_whatever_changes_a_feature_changes_its_key(networks, extractor, photos, tmp_path):
    """All in one cache: a feature that is not recomputed would be another extractor's."""
    head_bias = state_arrays(networks[3])
    head_bias["head.norm.bias"] = head_bias["head.norm.bias"] + np.float32(1e-3)
    cases = {
        "first": (extractor(), 0),
        "another view": (extractor(), 1),
        "a third view": (extractor(), 2),
        "views that are not mirrored": (extractor(mirror=False), 1),
        "resolution": (extractor(resolution=33), 0),
        "mean": (extractor(mean=(0.486, 0.456, 0.406)), 0),
        "deviation": (extractor(std=(0.229, 0.224, 0.226)), 0),
        "crop": (extractor(crop=0.9), 0),
        "mode": (extractor(mode="squash"), 0),
        "interpolation": (extractor(interpolation="bilinear"), 0),
        "weights": (extractor(state=head_bias), 0),
        "padding": (extractor(spec=dataclasses.replace(spec_of(), padding="symmetric")), 0),
        "channels": (extractor(1), 0),
    }
    values = []
    for one, view in cases.values():
        found = extract(one, photos, view=view, folder=tmp_path)
        assert found.computed == 20
        values.append(found.values)
    for one, view in cases.values():
        assert extract(one, photos, view=view, folder=tmp_path).computed == 0
    for number, name in enumerate(cases):
        same = [values[i].shape == values[number].shape and np.array_equal(values[i], values[number])
                for i in range(len(values)) if i != number]  # fmt: skip
        assert not any(same), name


def test_the_name_the_classifier_and_the_place_of_the_file_do_not_change_the_key(networks, extractor):
    spec = dataclasses.replace(spec_of(), lineage=Lineage(base="other"), num_classes=0)
    state = {key: array for key, array in state_arrays(networks[3]).items() if "classifier" not in key}
    assert extractor(spec=spec, state=state).key == extractor().key


def test_a_image_that_changed_is_computed_again(extractor, photos, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((40, 40, 3), 100, np.uint8)).save(path)
    split = Split(sources=(*photos.sources[:3], str(path)), labels=np.zeros(4, np.int64))
    before = extract(extractor(), split, folder=tmp_path)
    status = os.stat(path)
    Image.fromarray(np.full((40, 40, 3), 101, np.uint8)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # neither time nor size changes
    after = extract(extractor(), split, folder=tmp_path)
    assert (before.computed, after.computed) == (4, 1)
    assert np.array_equal(before.values[:3], after.values[:3])
    assert not np.array_equal(before.values[3], after.values[3])


def test_a_image_that_moved_is_known(extractor, photos, tmp_path):
    moved = tmp_path / "moved.bin"
    moved.write_bytes(Path(photos.sources[4]).read_bytes())
    extract(extractor(), photos, folder=tmp_path)
    assert extract(extractor(), Split(sources=(str(moved),), labels=np.zeros(1)), folder=tmp_path).computed == 0


def test_arrays_of_the_same_bytes_and_another_shape_are_told_apart(extractor, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, 40 * 60 * 3, dtype=np.uint8)
    split = Split(sources=[pixels.reshape(40, 60, 3), pixels.reshape(60, 40, 3)], labels=np.zeros(2))
    assert extract(extractor(), split, folder=tmp_path).computed == 2


def test_what_cannot_be_read_is_left_out_with_the_right_indices(extractor, photos, tmp_path):
    (tmp_path / "damaged.jpg").write_bytes(Path(photos.sources[1]).read_bytes()[:200])
    (tmp_path / "empty.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    bad = [str(tmp_path / name) for name in ("damaged.jpg", "gone.png", "empty.png", "pipe.png", ".")]
    sources = [bad[0], photos.sources[0], *bad[1:4], photos.sources[1], photos.sources[2], bad[4]]
    split = Split(sources=sources, labels=np.arange(8))
    expected = extract(extractor(), photos, folder=tmp_path / "other").values[:3]
    for _ in range(2):
        found = extract(extractor(), split, folder=tmp_path)
        assert found.indices.tolist() == [1, 5, 6]
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-5)
    assert found.computed == 0
    with pytest.raises(DataError, match="at least one image that can be read; none can"):
        extract(extractor(), Split(sources=bad, labels=np.zeros(5)), folder=tmp_path)
    with pytest.raises(DataError, match="none can"):
        extract(extractor(), Split(sources=(), labels=np.zeros(0)), folder=tmp_path)


def test_other_views_are_parts_of_the_image_mirrored_where_that_is_safe(extractor, tmp_path):
    """An image whose pixels encode their position: every view must be a large part of it."""
    ramp = np.tile(np.arange(60, 180, dtype=np.uint8)[None, :, None], (120, 1, 3))
    views = {True: [], False: []}
    for mirror in views:
        one = extractor(mirror=mirror)
        for number in range(1, 30):
            key = number.to_bytes(16, "little")
            split = Split(sources=[ramp], labels=np.zeros(1))
            image = module._view(one, split, 0, key, 1)
            assert np.array_equal(image, module._view(one, split, 0, key, 1))
            assert image.shape == (SIDE, SIDE, 3)
            step = np.diff(image[..., 0].astype(int), axis=1)
            views[mirror].append((step.mean() > 0, np.ptp(image.astype(int))))
    assert all(rising for rising, _ in views[False])
    assert 5 < sum(rising for rising, _ in views[True]) < 24
    spans = [span for rows in views.values() for _, span in rows]
    assert min(spans) > 0.75 * (3 / 4) ** 0.5 * 110
    assert len(set(spans)) > 5


@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_views_of_wide_images_are_of_the_square_that_evaluation_sees(mode, extractor):
    ramp = np.tile(np.arange(0, 240, dtype=np.uint8)[None, :, None], (40, 1, 3))
    one, split = extractor(mirror=False, mode=mode, crop=1.0), Split(sources=[ramp], labels=np.zeros(1))
    for number in range(1, 8):
        middle = module._view(one, split, 0, number.to_bytes(16, "little"), 1)[SIDE // 2, :, 0].astype(int)
        assert np.ptp(middle) > 0.75 * (3 / 4) ** 0.5 * 220  # a centre crop has 40


def test_progress_counts_what_has_to_be_computed(extractor, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAVED_TOGETHER", 10)
    monkeypatch.setattr("effnet.runtimes.pipeline.BATCH", 8)
    known = Split(sources=photos.sources[:2], labels=np.zeros(2))
    extract(extractor(), known, folder=tmp_path)
    told = []
    extract(extractor(), photos, folder=tmp_path, progress=lambda *event: told.append(event))
    assert told == [(8, 18), (10, 18), (18, 18)]
    extract(extractor(), photos, folder=tmp_path, progress=lambda *event: told.append(event))
    assert len(told) == 3


class Stop(Exception):
    pass


def test_an_interrupted_run_goes_on_from_its_last_write(extractor, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAVED_TOGETHER", 8)
    expected = extract(extractor(), photos, folder=tmp_path / "whole").values

    def stop(done, total):
        if done > 8:
            raise Stop

    with pytest.raises(Stop):
        extract(extractor(), photos, folder=tmp_path, progress=stop)
    found = extract(extractor(), photos, folder=tmp_path)
    assert found.computed == 12
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-5)


def test_images_in_shards_have_the_features_of_their_files(extractor, photos, tmp_path):
    for source, label in zip(photos.sources, photos.labels, strict=True):
        (tmp_path / "data" / f"class{label}").mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / "data" / f"class{label}")
    write_shards(read_dataset(tmp_path / "data"), tmp_path / "shards")
    folder, shards = read_dataset(tmp_path / "data"), read_dataset(tmp_path / "shards")
    made = extractor()
    one = extract(made, folder.train, folder=tmp_path / "cache")
    other = extract(made, shards.train, folder=tmp_path / "cache")
    # The cache identifies an image by its content, not its path.
    assert (one.computed, other.computed) == (len(folder.train), 0)
    np.testing.assert_array_equal(np.sort(one.values, axis=0), np.sort(other.values, axis=0))
