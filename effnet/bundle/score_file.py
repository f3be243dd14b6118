"""The arrays of the score that says "unknown", in known.safetensors of a bundle; only exports need them."""

from pathlib import Path

import numpy as np

from effnet.bundle.names import SCORE_ARRAYS
from effnet.bundle.safetensors_file import load_safetensors
from effnet.errors import BundleError, WeightsError
from effnet.system.files import written_whole
from effnet.tasks.known import ARRAYS, KnownScore, Method


def read_score_arrays(folder: Path, method: Method) -> dict[str, np.ndarray]:
    """Return the arrays of a score in the bundle `folder`, empty if it has none of this score.

    Numbers of fp16 become float32. Raises BundleError for a damaged file.
    """
    path = folder / SCORE_ARRAYS
    if not ARRAYS[method] or not path.is_file():
        return {}
    try:
        arrays, metadata = load_safetensors(path)
    except (OSError, ValueError, WeightsError) as error:
        raise BundleError(f"{path} must hold the arrays of the score {method}; {error}: fit again") from error
    if metadata.get("method") != method or set(arrays) != set(ARRAYS[method]):
        return {}
    found = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in arrays.items()}
    if not all(np.isfinite(array).all() for array in found.values()):
        raise BundleError(f"{path} must hold finite numbers; some are not: fit again")
    return found


def write_score_arrays(score: KnownScore | None, folder: Path) -> None:
    """Write the arrays of a score into `folder`, whole or not at all; without a score, remove those of another."""
    path = folder / SCORE_ARRAYS
    if score is None or not ARRAYS[score.method]:
        path.unlink(missing_ok=True)
        return
    if not score.complete:  # the bundle lacks them
        return
    import safetensors.numpy  # a device never writes them

    rows = {name: np.asarray(_narrow(array), order="C") for name, array in score.arrays.items()}
    with written_whole(path) as beside:
        beside.write_bytes(safetensors.numpy.save(rows, metadata={"method": score.method}))


def _narrow(array: np.ndarray) -> np.ndarray:
    """Return the array as fp16 if that holds it exactly."""
    half = array.astype(np.float16) if array.ndim else array
    return half if np.array_equal(half.astype(array.dtype), array) else array
