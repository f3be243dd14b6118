"""The answers of detectors and segmenters: tables, JSON, CSV, COCO, YOLO, masks and drawings."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.cli.answer.images import expand
from effnet.cli.console import fail, print_json, print_table
from effnet.errors import ImageError, InputError
from effnet.system.text import cell, percent, printable

if TYPE_CHECKING:
    import numpy as np

    from effnet.runtimes.predictor import Predictor

FOLDERS = {"detection": ("yolo",), "segmentation": ("png",)}
"""The formats of a task that are files in a folder, one for each image."""

_LISTED = ("table", "json", "csv")
_COCO = "coco"


def answer_images(
    model: "Predictor",
    words: list[str],
    *,
    form: str,
    out: Path | None,
    draw: Path | None,
    annotations: Path | None,
    threshold: float | None,
) -> list[str]:
    """Answer images in the format `form`, into `out`, and draw them into the folder `draw`; return unreadable paths.

    Raises InputError for options that the task does not have.
    """
    task = model.config.task
    forms = (*_LISTED, *((_COCO,) if task == "detection" else ()), *FOLDERS[task])
    if form not in forms:
        raise InputError(f"the format of {task} must be one of {', '.join(forms)}; got {form}")
    if form in FOLDERS[task] and out is None:
        raise InputError(f"--format {form} writes a file for each image: give their folder, --out DIR")
    if form == "table" and out is not None:
        raise InputError(f"--out takes {', '.join(forms[1:])}, not a table: name one with --format")
    if form == _COCO and annotations is None and out is None:
        raise InputError(
            "--format coco needs the numbers of images: give the file that has them, --annotations FILE, or write them "
            "beside the result, --out FILE"
        )
    if annotations is not None and form != _COCO:
        raise InputError("--annotations numbers the images of --format coco; leave it out")
    paths = list(expand(words))
    job = _Job(model, form=form, out=out, draw=draw, annotations=annotations, threshold=threshold)
    job.run(paths)
    return job.bad


class _Job:
    """One run over images; `bad` are the paths of those that cannot be read."""

    def __init__(
        self,
        model: "Predictor",
        *,
        form: str,
        out: Path | None,
        draw: Path | None,
        annotations: Path | None,
        threshold: float | None,
    ) -> None:
        self.model, self.form, self.out, self.draw = model, form, out, draw
        self.annotations, self.threshold = annotations, threshold
        self.names, self.detects = model.config.class_names, model.config.task == "detection"
        self.bad: list[str] = []

    def run(self, paths: list[Any]) -> None:
        """Answer all images, and print or write the result."""
        from effnet.tasks.writing.names import output_names

        texts = [path if isinstance(path, str) else path.path for path in paths]
        stems = dict(zip(texts, output_names(texts), strict=True))
        if self.out is not None and self.form in FOLDERS[self.model.config.task]:
            self._begin_folder(self.out)
        results = self._results(paths, stems)
        if self.form == "json":
            self._json(results)
        elif self.form == "csv":
            self._csv(results)
        elif self.form == _COCO:
            self._coco(results, texts)
        else:
            self._table(results)

    def _begin_folder(self, folder: Path) -> None:
        from effnet.tasks.writing.images import write_mask_classes
        from effnet.tasks.writing.yolo import write_yolo_names

        folder.mkdir(parents=True, exist_ok=True)
        (write_yolo_names if self.form == "yolo" else write_mask_classes)(self.names, folder)

    def _results(self, paths: list[Any], stems: dict[str, str]) -> Iterator[tuple[str, str, "np.ndarray", Any]]:
        """Yield path, name, pixels and answer of each readable image; its own files are written."""
        from effnet.data.view.evaluation import whole_image

        for path in paths:
            try:
                if not isinstance(path, str):
                    raise ImageError(f"{printable(path.path)}: {path.reason}")
                image = whole_image(path, self.model.config.preprocess, warn=self.model.warn_once)
            except ImageError as error:
                self.bad.append(path if isinstance(path, str) else path.path)
                fail(str(error))
                continue
            found = self.model.answer_in(image, threshold=self.threshold)
            self._write(stems[path], image, found)
            yield path, stems[path], image, found

    def _write(self, stem: str, image: "np.ndarray", found: Any) -> None:
        from effnet.tasks.drawing.boxes import draw_detections
        from effnet.tasks.drawing.regions import draw_regions
        from effnet.tasks.writing.images import write_drawing, write_mask
        from effnet.tasks.writing.yolo import write_yolo

        height, width = image.shape[:2]
        if self.form == "yolo" and self.out is not None:
            write_yolo(found, self.out, name=stem, width=width, height=height)
        elif self.form == "png" and self.out is not None:
            write_mask(found.mask, self.out, name=stem, class_names=self.names)
        if self.draw is not None:
            drawn = (
                draw_detections(image, found, self.names)
                if self.detects
                else draw_regions(image, found.mask, self.names)
            )
            write_drawing(drawn, self.draw / f"{stem}.jpg")

    def _json(self, results: Iterator[tuple[str, str, "np.ndarray", Any]]) -> None:
        from effnet.tasks.writing.json_file import detections_data, mask_data, write_rows

        rows = (
            detections_data(found, self.names, path=path, width=image.shape[1], height=image.shape[0])
            if self.detects
            else mask_data(found.mask, self.names, path=path, file="")
            for path, _, image, found in results
        )
        if self.out is not None:
            write_rows(rows, self.out)
        else:
            print_json(list(rows))

    def _csv(self, results: Iterator[tuple[str, str, "np.ndarray", Any]]) -> None:
        from effnet.system.files import written_whole

        if self.out is None:
            self._csv_rows(sys.stdout, results)
            return
        with written_whole(self.out) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
            self._csv_rows(file, results)

    def _csv_rows(self, file: Any, results: Iterator[tuple[str, str, "np.ndarray", Any]]) -> None:
        writer = csv.writer(file, lineterminator="\n")
        sides = ("left", "top", "right", "bottom")
        writer.writerow(("path", "label", "score", *sides) if self.detects else ("path", "label", "share"))
        for path, _, _, found in results:
            if self.detects:
                for box, score, number in zip(found.boxes, found.scores, found.classes, strict=True):
                    row = (f"{score:.6f}", *(f"{side:.3f}" for side in box))
                    writer.writerow((cell(path), cell(self.names[int(number)]), *row))
                if not len(found.scores):  # it was answered, and as annotations it shows the background
                    writer.writerow((cell(path), *[""] * 6))
            else:
                for name, share in zip(self.names, found.shares, strict=True):
                    if share:
                        writer.writerow((cell(path), cell(name), f"{share:.6f}"))

    def _coco(self, results: Iterator[tuple[str, str, "np.ndarray", Any]], paths: list[str]) -> None:
        from effnet.bundle.config import write_text
        from effnet.tasks.writing.coco import coco_images, coco_results, numbered, read_ids
        from effnet.tasks.writing.json_file import write_rows

        ids = read_ids(str(self.annotations), self.names) if self.annotations else numbered(paths, self.names)
        sizes: dict[str, tuple[int, int]] = {}
        rows: list[dict[str, Any]] = []
        for path, _, image, found in results:
            sizes[path] = (image.shape[1], image.shape[0])
            rows += coco_results(found, path=path, ids=ids)
        if self.out is None:
            print_json(rows)
            return
        write_rows(rows, self.out)
        if self.annotations is None:  # else nobody could tell which image is which
            images = json.dumps(coco_images(sizes, self.names, ids=ids, results=rows), ensure_ascii=False)
            write_text(self.out.with_name(f"{self.out.stem}.images.json"), images + "\n")

    def _table(self, results: Iterator[tuple[str, str, "np.ndarray", Any]]) -> None:
        rows = [(printable(path), self._words(found)) for path, _, _, found in results]
        if rows:
            print_table(("image", "objects" if self.detects else "classes"), rows, left=("image", "objects", "classes"))

    def _words(self, found: Any) -> str:
        """Return an answer in words: "2 queen, 1 ten", or "land 60.0%, water 40.0%"."""
        import numpy as np

        if self.detects:
            counts = np.bincount(found.classes, minlength=len(self.names))
            some = (f"{n} {printable(name)}" for n, name in zip(counts, self.names, strict=True) if n)
            return ", ".join(some) or "no objects"
        order = np.argsort(-np.array(found.shares), kind="stable")
        return ", ".join(f"{printable(self.names[i])} {percent(found.shares[i])}" for i in order if found.shares[i])
