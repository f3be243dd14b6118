"""Accept a network's name wherever the public API takes a spec."""

from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError


def as_spec(network: ArchSpec | str) -> ArchSpec:
    """Return the spec itself, or that of the network of this name; raise SpecError for anything else."""
    if isinstance(network, ArchSpec):
        return network
    if not isinstance(network, str):
        raise SpecError(f"a network must be an ArchSpec or a name of `effnet models`; got {type(network).__name__}")
    # The catalog derives its families with `scale` and `cost`, which take names themselves.
    from effnet.arch.catalog import get_spec

    return get_spec(network)
