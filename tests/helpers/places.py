"""Folders of the tests: the repository, the golden files, these helpers, and the shared data beside the repository."""

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
GOLDEN = HELPERS.parent / "golden"
ROOT = HELPERS.parents[1]
SHARED = ROOT.parent / "shared"
