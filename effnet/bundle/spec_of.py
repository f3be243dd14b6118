"""The network that a user names: by its name, a bundle, or a JSON file."""

import os
from pathlib import Path

from effnet.arch.catalog import get_spec
from effnet.arch.codec import spec_from_dict
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError
from effnet.system.files import read_json
from effnet.system.text import reason_of, shortened


def read_spec(subject: str | os.PathLike[str]) -> ArchSpec:
    """Return the network of a name, a bundle folder or a JSON file; raise SpecError or BundleError if there is none."""
    if not isinstance(subject, str | os.PathLike):
        raise SpecError(
            f"a network must be a name, a bundle's folder, a JSON file or an ArchSpec; got {type(subject).__name__}"
        )
    path = Path(subject)
    if os.path.isdir(subject):
        from effnet.bundle.config import read_config  # it loads numpy, which names do not need

        return read_config(path).arch
    if path.suffix == ".json":
        try:
            return spec_from_dict(read_json(path))
        except SpecError as error:
            raise SpecError(f"{path}: {shortened(str(error))}") from error
        except (OSError, ValueError) as error:
            raise SpecError(
                f"{path} must be a network as JSON, as `effnet models scale --out` writes it: {reason_of(error)}"
            ) from error
    return get_spec(os.fspath(subject))
