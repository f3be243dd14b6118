import numpy as np
import pytest
import torch

from effnet.data.preprocess import Preprocess, normalize
from effnet.training.device import to_input


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_batches_are_normalised_as_by_numpy_to_the_last_bit(channels: int) -> None:
    values = tuple(0.3 + 0.1 * i for i in range(channels))
    preprocess = Preprocess(resolution=6, mean=values, std=values[::-1])
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 7, channels), dtype=np.uint8)
    for batch in (images, images[:, :, ::-1], images[::2], images[:1]):
        found = to_input(batch, preprocess, torch.device("cpu"))
        assert found.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), normalize(batch, preprocess))
