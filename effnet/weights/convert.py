"""Weights for other projects: one safetensors file with their names."""

import os
from pathlib import Path
from typing import get_args

from effnet.bundle.weights import write_arrays
from effnet.errors import InputError, WeightsError, nearest
from effnet.weights.pretrained import load_pretrained
from effnet.weights.schemes import Scheme, from_effnet


def convert(what: str, *, to: str, out: str | os.PathLike[str], model: str | None = None) -> int:
    """Write the weights named by `what` to the safetensors file `out`; return the number of arrays.

    `what` and `model` are as in `load_pretrained`; names and layouts are those of the scheme `to`: a timm or
    torchvision model takes the file with load_state_dict. Raises WeightsError if the scheme has no names for the
    network, InputError if `out` exists.
    """
    known = get_args(Scheme)
    if to not in known:
        raise WeightsError(f"a naming scheme is one of {', '.join(known)}; got {to!r}{nearest(to, known)}")
    path = Path(out)
    if path.exists() or not path.absolute().parent.is_dir():
        raise InputError(f"--out must be a new file in a folder that exists; {path} is not")
    found = load_pretrained(what, model=model)
    arrays = from_effnet(found.state, found.spec, scheme=to)  # type: ignore[arg-type]  # just checked
    write_arrays(arrays, path, metadata={"format": "pt"})
    return len(arrays)
