"""Cases of a test beyond those that `make test` needs."""

from typing import Any

import pytest


def more(*values: Any) -> Any:
    """Return a case of `parametrize` that is left to `make test-all`."""
    return pytest.param(*values, marks=pytest.mark.elsewhere)
