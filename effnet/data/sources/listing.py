"""List the images that a path or name stands for: a folder, a manifest, shards, a data set of the hub, or "digits"."""

import os
from collections.abc import Callable, Sequence

from effnet.data.annotated.listing import list_annotated
from effnet.data.manifests.manifest import MANIFEST_SUFFIXES, read_manifest
from effnet.data.sources.folder import list_folder
from effnet.data.sources.in_memory import list_digits
from effnet.data.sources.layout import EXPECTED
from effnet.data.sources.names import HUB, is_sharded
from effnet.data.sources.source import Listing
from effnet.errors import DataError, nearest
from effnet.system.text import printable

BUILT_IN = ("digits",)
"""The names of data sets that need no files."""


def list_path(
    path: str,
    outputs: Sequence[str],
    *,
    of_model: bool,
    progress: Callable[[int, int], None] | None,
    task: str = "auto",
    class_names: Sequence[str] = (),
) -> Listing:
    """Return the listing of a path or name; raise DataError if it cannot be listed.

    `outputs` are the chosen columns of a manifest; with `of_model` those of a model, which others need not heed. `task`
    is what is learnt, "auto" for what the annotations allow; `class_names` are those of a model of objects or masks.
    """
    try:
        if path not in BUILT_IN and not outputs and os.path.exists(path):
            annotated = list_annotated(path, task, class_names=class_names)
            if annotated is not None:
                return annotated
        if path not in BUILT_IN and path.lower().endswith(tuple(MANIFEST_SUFFIXES)) and os.path.isfile(path):
            return read_manifest(path, outputs=outputs, of_model=of_model)
        check_no_outputs(outputs, printable(path), of_model=of_model)
        if path in BUILT_IN:
            return list_digits()
        # Only these need the network, or an extra package.
        if path.startswith(HUB):
            from effnet.data.sources.hub import list_hub

            return list_hub(path)
        if is_sharded(path):
            from effnet.data.shards.listing import list_shards

            return list_shards(path, progress=progress)
        if os.path.isdir(path):
            return list_folder(path)
    except OSError as error:
        raise DataError(f"DATA must be readable, but {printable(path)} is not: {error.strerror}") from error
    raise _no_data(path)


def check_no_outputs(outputs: Sequence[str], shown: str, *, of_model: bool) -> None:
    """Raise DataError for outputs that a user chose of anything but a manifest."""
    if outputs and not of_model:
        raise DataError(f"outputs are columns of a CSV or JSONL manifest; got {','.join(outputs)} for {shown}")


def _no_data(path: str) -> DataError:
    """Return the error for a path that is neither a folder nor a manifest."""
    if os.path.isfile(path):
        return DataError(
            f"a manifest must end in {', '.join(sorted(MANIFEST_SUFFIXES))}, received the file "
            f"{printable(path)}; give a manifest or a folder (unpack archives first): {EXPECTED}"
        )
    special = os.path.exists(path)  # a pipe or a device, which may never end
    found = f"{printable(path)} is neither a file nor a folder" if special else f"there is no {printable(path)}"
    return DataError(
        f"DATA must be a folder, a CSV or JSONL manifest, .tar shards, hf:NAME or one of {', '.join(BUILT_IN)}; "
        f"{found}{'' if special else nearest(path, BUILT_IN)}"
    )
