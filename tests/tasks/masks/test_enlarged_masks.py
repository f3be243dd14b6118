import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import DataError
from effnet.tasks.masks.enlarge import classes_of

torch = pytest.importorskip("torch")


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(1, 300),
)
@settings(max_examples=40, deadline=None)
def test_classes_are_those_of_torchs_bilinear_resize(seed, classes, h, w, height, width):
    logits = np.random.default_rng(seed).standard_normal((classes, h, w)).astype(np.float32)
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None].double(), (height, width), mode="bilinear", align_corners=False
    )[0].numpy()
    found = classes_of(logits, height=height, width=width)
    assert (found.shape, found.dtype) == ((height, width), np.uint8)
    best = np.sort(whole, axis=0)
    sure = np.ones((height, width), bool) if classes == 1 else best[-1] - best[-2] > 1e-5
    assert (found == whole.argmax(0))[sure].all()


def test_the_first_of_equal_logits_wins():
    logits = np.zeros((3, 2, 2), np.float32)
    logits[1:, 0, 0] = 1
    assert classes_of(logits, height=2, width=2).tolist() == [[1, 0], [0, 0]]


def test_only_the_part_that_the_image_covers_counts():
    logits = np.zeros((2, 4, 4), np.float32)
    logits[1, :, 2:] = 9  # beside the image
    assert not classes_of(logits[:, :, :2], height=8, width=4, extent=(4, 2)).any()
    half = classes_of(logits, height=4, width=6, extent=(4, 3))
    assert half.tolist() == [[0, 0, 0, 1, 1, 1]] * 4


def test_other_shapes_are_errors():
    for logits in (np.zeros((2, 3)), np.zeros((0, 2, 2)), np.zeros((257, 2, 2)), np.zeros((2, 0, 2))):
        with pytest.raises(DataError, match="logits must be"):
            classes_of(logits.astype(np.float32), height=4, width=4)
