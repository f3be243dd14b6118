"""The other way to mend a pruned network: its norms take their statistics anew."""

from effnet.training.norms import precise_norms
from effnet.weights.bundle import state_arrays


def renormed(network, batches):
    """Return the network's state with the norms' statistics of normalised `batches`, as its weights are now."""
    with precise_norms(network, batches):
        return {name: array.copy() for name, array in state_arrays(network).items()}
