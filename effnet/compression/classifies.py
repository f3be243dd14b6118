"""What compression can do for classifiers alone."""

from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError


def must_classify(spec: ArchSpec, what: str) -> None:
    """Raise SpecError for a network with a decoder, whose levels share weights, for which there is no `what`."""
    if spec.decoder is not None:
        raise SpecError(
            f"{what} is for networks without a decoder; {spec.name} detects or segments: quantize it after training"
        )
