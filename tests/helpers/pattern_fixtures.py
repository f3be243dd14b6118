"""Subjects shared by several tests; trained once."""

import pytest


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A network with ReLU that has learned the patterns; do not change it."""
    import torch
    from patterns import learned

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = learned(tmp_path_factory.mktemp("good"))
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="session")
def fragile(good):
    """The same function with weights that int8 ruins."""
    from patterns import unbalanced

    return unbalanced(good)
