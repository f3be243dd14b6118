"""`python -m benchmarks.detect_int8 --cache DIR`: what detectors lose in int8, in three runtimes.

The detectors of `benchmarks.detect_cards`, which keeps them in `DIR`, each exported in fp32 and in int8 for ONNX
Runtime, LiteRT and OpenVINO, calibrated on training images. The figure is the loss of AP on the test images from fp32
in ONNX Runtime, in points, the mean over seeds, of the second-best runtime: two must keep the goal. Beside it stands
the correlation of the scores above 0.02 with those of fp32.
"""

import argparse
import shutil
from functools import partial
from pathlib import Path

import numpy as np

import effnet
from benchmarks.harness import cached, finish, shared
from effnet.data.datasets import Split, loaded_image, read_dataset
from effnet.data.preprocess import resize_and_crop
from effnet.data.view.evaluation import eval_decoding
from effnet.measurement.evaluate import evaluate
from effnet.runtimes.predictor import Predictor
from effnet.tasks.task import parted

GOAL, MAX_DROP = 1.0, 1.0
FP32, FORMATS = "onnx", ("onnx-int8", "litert-int8", "openvino-int8")
LEAST = 0.02


def main() -> None:
    """Export and score what is missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/detect_int8.json")
    parser.add_argument("--n", type=int, default=3, help="number of seeds")
    parser.add_argument("--cache", type=Path, required=True, help="folder of benchmarks.detect_cards")
    args = parser.parse_args()
    files = [args.cache / f"cards-int8-{seed}.json" for seed in range(args.n)]
    rows = [cached(file, partial(_row, seed, file.with_suffix(""))) for seed, file in enumerate(files)]
    samples = {f"{name}_loses_ap": [row[FP32]["ap"] - row[name]["ap"] for row in rows] for name in FORMATS}
    samples |= {f"{name}_correlation": [row[name]["correlation"] for row in rows] for name in FORMATS}
    losses = sorted(float(np.mean(samples[f"{name}_loses_ap"])) for name in FORMATS)
    for name in FORMATS:
        lost, related = samples[f"{name}_loses_ap"], samples[f"{name}_correlation"]
        print(f"{name}: loses {np.mean(lost):+.2f} AP ({min(lost):+.2f} to {max(lost):+.2f}), {np.mean(related):.4f}")
    finish("detect_int8", args, figure=losses[1], goal=GOAL, unit="points of AP", better="lower", samples=samples)


def _row(seed: int, folder: Path) -> dict[str, dict[str, float]]:
    data = str(shared("data", "cards"))
    shutil.rmtree(folder, ignore_errors=True)
    test = read_dataset(data, seed=seed).test
    effnet.export(folder.parent / f"cards-effnet-{seed}", to=[FP32, *FORMATS], data=data, out=folder, max_drop=MAX_DROP)
    reference = _scores(Predictor(folder, format=FP32), test)
    row = {}
    for name in (FP32, *FORMATS):
        model = Predictor(folder, format=name)
        scores = _scores(model, test)
        either = np.maximum(scores, reference) >= LEAST
        row[name] = {
            "ap": 100 * evaluate(model, test).ap,
            "correlation": float(np.corrcoef(scores[either], reference[either])[0, 1]),
        }
    print(seed, row, flush=True)
    return row


def _scores(model: Predictor, test: Split) -> np.ndarray:
    """Return the scores of each point, class and image of a split."""
    config, found = model.config, []
    decoding = eval_decoding(config.preprocess)
    for index in range(len(test)):
        with loaded_image(test, index, decoding) as image:
            pixels = resize_and_crop(np.array(image), config.preprocess)
        found.append(parted(model.outputs(pixels[None]), config.file_outputs)["scores"])
    return 1 / (1 + np.exp(-np.concatenate(found).ravel()))


if __name__ == "__main__":
    main()
