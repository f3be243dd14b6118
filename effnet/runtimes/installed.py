"""Check which runtimes are installed, without importing them."""

from importlib import metadata
from importlib.util import find_spec

from effnet.errors import MissingExtraError
from effnet.runtimes.record import Need
from effnet.runtimes.registry import RUNTIMES


def missing(runtime: str, *, int8: bool = False) -> MissingExtraError | None:
    """Return the error that says how to install `runtime`, or None if it is installed.

    With `int8` the package that writes its int8 files must be installed, too.
    """
    found = RUNTIMES[runtime]
    needed = [found.need, *([found.quantizer] if int8 and found.quantizer else [])]
    return next((error for need in needed if (error := absent(need))), None)


def absent(need: Need) -> MissingExtraError | None:
    """Return the error that says how to install a package, or None if it is installed."""
    try:
        found = find_spec(need.module)
    except (ImportError, ValueError):  # a module in sys.modules without a spec
        found = None
    return None if found else MissingExtraError(need.package, need.extra)


def runtime_version(runtime: str) -> str:
    """Return the version of a runtime; empty if it is not installed or not known."""
    found = RUNTIMES.get(runtime)
    return _versions([found.need.package]).get(found.need.package, "") if found else ""


def versions_for(runtime: str) -> dict[str, str]:
    """Return the versions of effnet and of the installed packages that a runtime's exports depend on."""
    return _versions(["effnet", *RUNTIMES[runtime].depends])


def _versions(packages: list[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
