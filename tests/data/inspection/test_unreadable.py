"""What cannot be used is left out, and said."""

import numpy as np
import pytest

from effnet.data.datasets import read_dataset
from effnet.data.inspection.unreadable import drop, without_unreadable
from effnet.data.sources.source import Skipped
from effnet.errors import DataError


def test_drop_takes_files_out_and_names_them(make_folder) -> None:
    dataset = read_dataset(make_folder({"a": 10, "b": 10}))
    gone = [dataset.train.sources[0], dataset.test.sources[-1]]
    found = drop(dataset, [*gone, "unknown.png"], reason="it is truncated")
    assert len(found.train) == len(dataset.train) - 1
    assert len(found.test) == len(dataset.test) - 1
    assert found.val.sources == dataset.val.sources
    np.testing.assert_array_equal(found.train.labels, dataset.train.labels[1:])
    assert {s.path for s in found.skipped} == set(gone)
    assert not dataset.skipped
    assert drop(dataset, ["unknown.png"], reason="x") is dataset


def test_drop_refuses_to_empty_a_class_or_a_split(make_folder) -> None:
    dataset = read_dataset(make_folder({"a": 10, "b": 3}))
    of_b = [p for p, label in zip(dataset.train.sources, dataset.train.labels, strict=True) if label == 1]
    with pytest.raises(DataError, match="no usable image left in train: b"):
        drop(dataset, of_b, reason="x")
    with pytest.raises(DataError, match="the split val has no usable image left"):
        drop(dataset, list(dataset.val.sources), reason="x")


def test_unreadable_files_are_dropped_with_their_reasons_or_an_error(make_folder) -> None:
    dataset = read_dataset(make_folder({"a": 10, "b": 10}))
    unreadable = [Skipped(path=dataset.train.sources[3], reason="the file is empty")]
    found = without_unreadable(dataset, unreadable)
    assert found.skipped == tuple(unreadable)
    assert len(found.train) == len(dataset.train) - 1
    with pytest.raises(DataError, match="the file is empty"):
        without_unreadable(dataset, unreadable, strict=True)
    assert without_unreadable(dataset, (), strict=True) is dataset
