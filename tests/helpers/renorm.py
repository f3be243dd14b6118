"""An alternative way to repair a pruned network: re-estimate its BatchNorm statistics."""

from effnet.bundle.weights import state_arrays
from effnet.training.optim.norms import precise_norms


def renormed(network, batches):
    """Return the network's state with the BatchNorm statistics of normalised `batches` under its current weights."""
    with precise_norms(network, batches):
        return {name: array.copy() for name, array in state_arrays(network).items()}
