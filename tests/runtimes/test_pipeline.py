"""Many images through a session: results are in order, whichever thread computes them."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import ImageError
from effnet.runtimes.pipeline import BATCH, run_images


def image(index):
    """An image whose pixels encode its index."""
    return np.full((2, 2, 1), index, dtype=np.uint8)


def means(images):
    return images.reshape(len(images), -1).mean(1, keepdims=True)


def readable(bad):
    def prepare(index):
        if index in bad:
            raise ImageError(f"{index}: it is damaged")
        return image(index)

    return prepare


@settings(max_examples=40, deadline=None)
@given(
    indices=st.lists(st.integers(0, 99), unique=True, max_size=40),
    bad=st.sets(st.integers(0, 99)),
    workers=st.integers(1, 5),
)
def test_every_readable_image_has_its_row_in_order(indices, bad, workers):
    told = []
    rows, found = run_images(
        indices,
        prepare=readable(bad),
        compute=means,
        workers=workers,
        progress=lambda *event: told.append((threading.current_thread(), *event)),
    )
    assert found == [index for index in indices if index not in bad]
    assert [row.tolist() for row in rows] == [[index] for index in found]
    done = [count for _, count, _ in told]
    assert done == [*range(BATCH, len(indices), BATCH), *([len(indices)] if indices else [])]
    assert {(thread, total) for thread, _, total in told} <= {(threading.current_thread(), len(indices))}


def test_images_go_in_batches_and_no_session_runs_for_a_batch_of_damaged_ones():
    batches = []

    def compute(images):
        batches.append((images.shape, images.dtype))
        return means(images)

    bad = {0, 1, *range(BATCH, 2 * BATCH)}
    total = 2 * BATCH + 3
    rows, found = run_images(range(total), prepare=readable(bad), compute=compute, workers=1)
    assert batches == [((BATCH - 2, 2, 2, 1), np.uint8), ((3, 2, 2, 1), np.uint8)]
    assert found == [*range(2, BATCH), *range(2 * BATCH, total)]
    assert len(rows) == BATCH + 1


def test_one_computes_while_another_does():
    """Two batches wait for each other, which would block for ever if they ran one after the other."""
    meet = threading.Barrier(2, timeout=300)

    def compute(images):
        meet.wait()
        return means(images)

    rows, _ = run_images(range(2 * BATCH), prepare=image, compute=compute, workers=2)
    assert len(rows) == 2 * BATCH


@pytest.mark.parametrize("where", ["prepare", "compute", "progress"])
def test_an_error_ends_the_work_at_once_and_leaves_no_thread(where):
    before, computed = threading.active_count(), []

    def fail(*_):
        raise RuntimeError("out of memory")

    def compute(images):
        time.sleep(0.002)
        computed.append(len(images))
        return means(images)

    calls = {"prepare": image, "compute": compute, "progress": None} | {where: fail}
    with pytest.raises(RuntimeError, match="out of memory"):
        run_images(range(1000 * BATCH), **calls, workers=2)
    assert len(computed) < 500
    assert threading.active_count() == before
