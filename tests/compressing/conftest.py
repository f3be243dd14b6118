"""Subjects that several tests share; trained once."""

import sys
from pathlib import Path

import pytest

# The tiny runs of training are this folder's too.
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A network with ReLU that has learned the patterns; not to change."""
    import torch
    from patterns import learned

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = learned(tmp_path_factory.mktemp("good"))
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="session")
def fragile(good):
    """The same function with weights that 8 bits spoil."""
    from patterns import unbalanced

    return unbalanced(good)
