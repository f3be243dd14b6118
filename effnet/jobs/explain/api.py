"""The verb explain: where a network looked for its answers, from activation maps or by occlusion; torch-free."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.decoders.record import Detector
from effnet.bundle.config import ModelConfig, read_config, read_maps
from effnet.data.preprocess import resize_and_crop
from effnet.data.view.evaluation import ImageLike, whole_image
from effnet.errors import BundleError, InputError, nearest
from effnet.jobs.explain.boxes import tiles_of, where_it_looked
from effnet.jobs.find.search import nearest_rows
from effnet.runtimes.installed import missing
from effnet.runtimes.predictor import Predictor, several_images
from effnet.runtimes.registry import FORMATS, RUNTIMES, deployed_format
from effnet.runtimes.results import unit_rows
from effnet.runtimes.shown import Shown, shown_maps
from effnet.system.text import brief, percent
from effnet.tasks.embedding import EMBEDDING

NEAREST = "nearest.npz"
"""The file of a bundle in which explain looks for similar images, as `effnet embed` writes it."""
NEIGHBOURS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One of the most similar images of an index: its path, and the cosine of the embeddings."""

    path: str
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """One image as the network sees it, uint8 [height, width, channels], its answer, and its maps.

    A detector's answer is the box that is explained, a Looked; None, without maps, if it finds no object.
    """

    image: np.ndarray
    answer: Any
    shown: tuple[Shown, ...]
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Index:
    """Embeddings of length 1, float32 [images, channels], and the paths of their images."""

    paths: tuple[str, ...]
    vectors: np.ndarray


class Explainer:
    """Explains the answers of the bundle `folder`; `format` is an export that returns maps, chosen by default.

    `output` is the only output to show or, of a classifier or a detector, the class. `index` is a file of `effnet
    embed`, by default nearest.npz of the bundle if it is there. Raises BundleError if no export returns maps.

    A detector needs no maps: its most certain box is explained, by any export. Raises InputError for a segmenter.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        output: str | None = None,
        index: str | os.PathLike[str] | None = None,
        format: str | None = None,  # noqa: A002
        threads: int = 1,
    ) -> None:
        config = read_config(folder)
        _check_task(config, folder, index)
        _check_output(config, output)
        self.detects = config.arch.decoder is not None
        if not self.detects and format is None:
            format = _format_with_maps(Path(folder), config)  # noqa: A001
        self.predictor = Predictor(folder, threads=threads, format=format)
        self.config = config
        self.output = output
        self.index: Index | None = None
        if self.detects:
            self.places = tiles_of(config.preprocess.size)
            _ = self.predictor.engine
            return
        found = Path(index) if index is not None else Path(folder) / NEAREST
        self.index = read_index(found, config.arch.feature_channels) if index is not None or found.is_file() else None
        maps = self.predictor.engine.maps
        if maps is None:
            raise _no_maps(Path(folder), self.predictor.format.name)
        self.places = maps
        if self.index is not None:
            _ = self.predictor.features_engine

    def prepare(self, image: ImageLike) -> np.ndarray:
        """Return an image as `explain` takes it, uint8 [height, width, channels]: as `predict` prepares it."""
        if not self.detects:
            return self.predictor.prepare(image)
        preprocess = self.config.preprocess
        return resize_and_crop(whole_image(image, preprocess, warn=self.predictor.warn_once), preprocess)

    def explain(self, images: np.ndarray) -> list[Explanation]:
        """Explain prepared images, uint8 [batch, height, width, C]."""
        if self.detects:
            return [self._explained_box(image) for image in images]
        rows, maps = self.predictor.outputs_and_maps(images, scored=True)
        vectors = unit_rows(self.predictor.features(images)) if self.index is not None else [None] * len(images)
        task, names = self.config.task_record, self.config.class_names
        least = None if self.predictor.scored else self.config.threshold or 0.0
        answers = [task.answer(row, names, top=2, threshold=least) for row in rows]
        return [
            Explanation(
                image=image,
                answer=answer,
                shown=shown_maps(self.config, row[: len(names)], map_, answer, output=self.output),
                neighbours=_neighbours(self.index, vector) if self.index is not None else (),
            )
            for image, row, map_, answer, vector in zip(images, rows, maps, answers, vectors, strict=True)
        ]

    def _explained_box(self, image: np.ndarray) -> Explanation:
        names = self.config.class_names
        label = None if self.output is None else names.index(self.output)
        found = where_it_looked(self.predictor.outputs, image, self.config, label=label)
        if found is None:
            return Explanation(image=image, answer=None, shown=())
        score = percent(found.score, 1)
        shown = Shown(output="", title=names[found.label], value=score, map=found.map, box=found.box)
        return Explanation(image=image, answer=found, shown=(shown,))


def _check_task(config: ModelConfig, folder: str | os.PathLike[str], index: str | os.PathLike[str] | None) -> None:
    if config.arch.decoder is None:
        return
    if not isinstance(config.arch.decoder, Detector):
        raise InputError(
            f"explain shows where a network looked for one answer; {os.fspath(folder)} answers for each pixel, so that "
            "its mask is such a map itself: `effnet predict --draw DIR` draws it, and `effnet evaluate` counts which "
            "classes it confuses"
        )
    if index is not None:
        raise InputError(
            f"similar images are found by the embeddings of classifiers; {os.fspath(folder)} is a detector: leave out "
            "--nearest"
        )


def _check_output(config: ModelConfig, output: str | None) -> None:
    if config.output == EMBEDDING:
        raise InputError(
            "explain shows why an answer is given; this bundle returns embeddings: explain a bundle that `effnet "
            "zeroshot` makes of it"
        )
    known = [spec.name for spec in config.specs] or list(config.class_names)
    if output is not None and output not in known:
        what = "an output" if config.specs else "a class"
        raise InputError(f"--output must be {what} of the bundle; got {brief(output)}{nearest(output, known)}")


def _format_with_maps(folder: Path, config: ModelConfig) -> str:
    """Return the bundle's own format if it returns maps, or else another that does and can run here."""
    if not config.class_names:
        raise BundleError(
            f"a model needs a classifier to be explained; {folder} has none: `effnet fit --weights` makes one"
        )
    files = read_maps(folder)
    own = deployed_format(config)
    for target in (own, *FORMATS.values()):
        if target.file in files and RUNTIMES[target.runtime].can_run and missing(target.runtime) is None:
            return target.name
    raise _no_maps(folder, own.name)


def _no_maps(folder: Path, name: str) -> BundleError:
    return BundleError(
        f"explain needs an export that returns activation maps; {folder} has none: "
        f"`effnet export {folder} --maps --to {name}` writes it"
    )


def read_index(path: Path, channels: int) -> Index:
    """Return the embeddings in a file of `effnet embed`; raise InputError if it is none of this network."""
    again = f"`effnet embed BUNDLE TRAINING_IMAGES --out {path}` writes it"
    try:
        with np.load(path, allow_pickle=False) as data:
            paths, vectors = data["paths"], data["vectors"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"an index of similar images must be a file of `effnet embed`; {path} is not: {again}"
        ) from error
    good = paths.ndim == 1 and paths.dtype.kind == "U" and vectors.dtype.kind == "f"
    if not good or vectors.shape != (len(paths), channels) or not np.isfinite(vectors).all():
        raise InputError(
            f"{path} must hold {channels} finite numbers for each image, as this network's embeddings have; it holds "
            f"{vectors.dtype} {list(vectors.shape)} for {len(paths)} images: {again}"
        )
    return Index(paths=tuple(map(str, paths)), vectors=unit_rows(vectors.astype(np.float32)))


def _neighbours(index: Index, vector: Any) -> tuple[Neighbour, ...]:
    best, cosines = nearest_rows(index.vectors, vector, top=NEIGHBOURS)
    return tuple(
        Neighbour(path=index.paths[row], cosine=float(cosine)) for row, cosine in zip(best, cosines, strict=True)
    )


def explain(
    folder: str | os.PathLike[str],
    images: Sequence[ImageLike] | ImageLike,
    *,
    output: str | None = None,
    index: str | os.PathLike[str] | None = None,
    format: str | None = None,  # noqa: A002
    out: str | os.PathLike[str] | None = None,
    batch: int = 16,
) -> list[Explanation]:
    """Explain the bundle's answers to images: where each speaks for the answer, and where against it.

    Of a detector that is the most certain box, or that of the class `output`.

    The other arguments are those of Explainer; `out` is a page to write. Raises BundleError if no export returns maps
    (`effnet export BUNDLE --maps` writes one), ImageError if an image cannot be read.
    """
    from effnet.report.explanation.page import page_of

    explainer = Explainer(folder, output=output, index=index, format=format)
    given = list(several_images(images, batch=batch, verb="explain"))
    found: list[Explanation] = []
    for first in range(0, len(given), batch):
        chunk = given[first : first + batch]
        found += explainer.explain(np.stack([explainer.prepare(image) for image in chunk])) if chunk else []
    if out is not None:
        names = [
            str(image) if isinstance(image, str | os.PathLike) else f"image {n}" for n, image in enumerate(given, 1)
        ]
        model = Path(folder).resolve().name
        with page_of(Path(out), model=model, places=explainer.places, boxes=explainer.detects) as page:
            for name, one in zip(names, found, strict=True):
                page.add(name, one)
    return found


def to_dict(name: str, found: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON-able data: its maps as numbers, their places in the prepared image."""
    from effnet.report.explanation.overlay import half_share, place_in_words

    return {
        "path": name,
        "maps": [
            {
                **({"output": shown.output} if shown.output else {}),
                "of": shown.title,
                "value": shown.value,
                "contrast": shown.contrast,
                **({"box": [round(side, 2) for side in shown.box]} if shown.box else {}),
                "strongest": place_in_words(shown.map),
                "half_in_share": round(half_share(shown.map), 4),
                "map": np.round(shown.map.astype(float), 5).tolist(),
            }
            for shown in found.shown
        ],
        "nearest": [{"path": near.path, "cosine": round(near.cosine, 6)} for near in found.neighbours],
    }
