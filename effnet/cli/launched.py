"""Which process prints messages if `torchrun` started several."""

import os

from effnet.errors import EffnetError, InputError, SaidElsewhere


def is_first() -> bool:
    """Return whether this process is the only one, or the first of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) < 2 or os.environ.get("RANK", "0") == "0"


def says(error: EffnetError) -> bool:
    """Return whether this process prints the error; an InputError is printed by one process per machine."""
    if isinstance(error, SaidElsewhere):
        return False
    return not isinstance(error, InputError) or is_first() or os.environ.get("LOCAL_RANK", "0") == "0"
