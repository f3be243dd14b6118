"""What a round learns, on disk, so that a resumed fit learns the same."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from effnet.bundle.weights import load_arrays, write_arrays
from effnet.data.inspection.unlabelled import Unlabelled
from effnet.errors import BundleError, InputError
from effnet.system.files import parse_json
from effnet.training.state.checkpoint import trained_seconds
from effnet.training.unlabelled.pseudo import PseudoLabels, Threshold

_FILE = "pseudo_labels.safetensors"
_STUDENTS = "student-{}"
Learns = Literal["noisy_student", "freematch"]
"""How unlabelled images are learnt."""

PARTS = ("mixed", "labelled")
"""The folders of a student's two trainings: on all images, then on the labelled ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The `pseudo`-labels that a student learns, of `passed` ones, and its epochs: of all, then of labelled images.

    FreeMatch has no `threshold` before it begins: its pseudo-labels are the images alone, with a confidence of 0.
    """

    threshold: Threshold | None
    passed: int
    pseudo: PseudoLabels
    epochs: int
    labelled_epochs: int
    method: Learns = "noisy_student"


def student_folder(folder: Path, number: int) -> Path:
    """Return the folder of the student of a round, from 1, in that of an attempt."""
    return folder / _STUDENTS.format(number)


def students_seconds(folder: Path) -> float:
    """Return the seconds that the students in the folder of an attempt were trained for."""
    return sum(trained_seconds(path / part) for path in folder.glob(_STUDENTS.format("*")) for part in PARTS)


def write_kept(kept: Kept, folder: Path, images: Unlabelled) -> None:
    """Write the pseudo-labels of `images` into the folder of a student."""
    folder.mkdir(parents=True, exist_ok=True)
    threshold, pseudo = kept.threshold, kept.pseudo
    facts: dict[str, Any] = {
        "passed": kept.passed, "epochs": kept.epochs, "labelled_epochs": kept.labelled_epochs,
        "images": _fingerprint(images), "method": kept.method,
    }  # fmt: skip
    if threshold is not None:
        facts |= {"value": threshold.value, "precision": threshold.precision, "answers": threshold.answers}
    arrays = {"indices": pseudo.indices, "classes": pseudo.classes, "confidences": pseudo.confidences}
    write_arrays(arrays, folder / _FILE, metadata={"facts": json.dumps(facts)})


def read_kept(folder: Path, images: Unlabelled) -> Kept | None:
    """Return the pseudo-labels that an interrupted fit has written, None if there are none.

    Raises InputError if they are those of other images, BundleError if they cannot be read.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        arrays, metadata = load_arrays(path)
        facts = parse_json(metadata["facts"])
        if facts["images"] != _fingerprint(images):
            raise InputError(
                f"--resume needs the unlabelled images that the fit began with; those in {images.folder} have changed "
                "since"
            )
        method = facts.get("method", "noisy_student")
        names = () if method == "freematch" else ("value", "precision", "answers")
        return Kept(
            threshold=Threshold(**{name: facts[name] for name in names}) if names else None,
            passed=facts["passed"],
            pseudo=PseudoLabels(**{name: arrays[name] for name in ("indices", "classes", "confidences")}),
            epochs=facts["epochs"],
            labelled_epochs=facts["labelled_epochs"],
            method=method,
        )
    except (BundleError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} cannot be resumed: {error}; remove the folder to start again") from error


def _fingerprint(images: Unlabelled) -> int:
    return crc32("\n".join(images.paths).encode("utf-8", "surrogateescape"))
