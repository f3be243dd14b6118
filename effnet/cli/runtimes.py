"""The runtimes as choices of an option."""

from enum import StrEnum

from effnet.runtimes.registry import RUNTIMES

Profiled = StrEnum("Profiled", {name: name for name, found in RUNTIMES.items() if found.profiled})  # type: ignore[misc]
"""The runtimes that can be profiled."""
