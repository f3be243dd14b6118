"""Every error that effnet raises on purpose.

    EffnetError                  exit code 1
    ├── InputError               exit code 2: an input cannot be used
    │   ├── SpecError            a network description or a network's name
    │   ├── DataError            a data set, a manifest or a split
    │   │   └── ImageError       one image that cannot be decoded
    │   ├── BundleError          a model folder that is missing, damaged or of another version
    │   ├── WeightsError         published weights that are unavailable, unreadable or do not match the network
    │   └── MissingExtraError    an optional package that is not installed
    ├── BudgetError              exit code 3: the budget cannot be met, or the artifact missed it
    ├── BusyError                exit code 4: other processes kept the machine too busy to judge the budget
    └── SaidElsewhere            the exit code of an error that another process of the same run has reported

A message states the requirement, the received value and the remedy.
"""

import difflib
import reprlib
from collections.abc import Iterable

# No name in effnet is longer, and no message needs to show more of a received value.
_SHOWN = 80


class EffnetError(Exception):
    """The root of all errors that effnet raises on purpose."""

    exit_code = 1


class InputError(EffnetError):
    """An input cannot be used."""

    exit_code = 2


class SpecError(InputError):
    """A network description, or the name of a network, is not valid."""


class DataError(InputError):
    """A data set, a manifest or a split is not usable."""


class ImageError(DataError):
    """One image cannot be decoded."""


class BundleError(InputError):
    """A model folder is missing, damaged or of a version that this effnet cannot read."""


class WeightsError(InputError):
    """Published weights are unavailable or unreadable, or do not match the network."""


class MissingExtraError(InputError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f'this needs {package}, which is not installed; install it with: pip install "effnet[{extra}]"'
        )


class BudgetError(EffnetError):
    """The budget cannot be met, or the finished artifact missed it."""

    exit_code = 3


class BusyError(EffnetError):
    """Other processes kept the machine too busy to tell whether the budget is met."""

    exit_code = 4


class SaidElsewhere(EffnetError):
    """Another process of the same run has failed and reports the reason; this one ends with the same `exit_code`."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run has failed and reports the reason")
        self.exit_code = exit_code


# Import name of a package: its distribution name, and the extra that installs it. effnet.runtimes.registry adds those
# of the runtimes.
PACKAGES = {
    **{
        name: (name, "train")
        for name in (
            "torch", "onnx", "safetensors", "scipy", "tensorboard", "matplotlib", "jinja2", "huggingface_hub",
            "optuna",
        )
    },
    "sklearn": ("scikit-learn", "train"),
    "markupsafe": ("jinja2", "train"),
    "datasets": ("datasets", "hf"),
    "pydicom": ("pydicom", "medical"),
    "soundfile": ("soundfile", "audio"),
    "tokenizers": ("tokenizers", "words"),
    "av": ("av", "video"),
    **{name: (package, "serve") for name, package in (
        ("starlette", "starlette"), ("uvicorn", "uvicorn"), ("httptools", "httptools"),
        ("prometheus_client", "prometheus-client"),
    )},
}  # fmt: skip


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return the error to show for an import that failed because an optional package is missing, or None."""
    found = PACKAGES.get((error.name or "").split(".")[0])
    return MissingExtraError(*found) if found else None


def shown(value: object) -> str:
    """Return an untrusted value as a message shows it: on one line, shortened if it is long or deeply nested."""
    if isinstance(value, str | int | float):
        text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return reprlib.repr(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as "; did you mean 'b0'?" for an unknown name, or an empty string."""
    close = difflib.get_close_matches(name[:_SHOWN], list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
