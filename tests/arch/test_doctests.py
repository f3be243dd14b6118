"""The examples in the docstrings of arch print what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["catalog", "cost", "describe", "layers", "lineage", "scale", "spec"])
def test_examples_print_what_they_say(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"effnet.arch.{name}"))
    assert found.attempted > 0
    assert not found.failed
