"""The runtimes as choices of an option."""

from enum import StrEnum

from effnet.runtimes.registry import RUNTIMES, runnable

Runnable = StrEnum("Runnable", {name: name for name in runnable()})
"""The runtimes that can verify an artifact here."""

Profiled = StrEnum("Profiled", {name: name for name, found in RUNTIMES.items() if found.profiled})
"""The runtimes that can be profiled."""

NAMES = f"{', '.join(runnable()[:-1])} or {runnable()[-1]}"
"""The runtimes that run here, for a sentence."""
