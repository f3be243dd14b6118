"""The score of exported files of a real network against numpy, for benchmarks.unknowns."""

import tempfile
from pathlib import Path

import numpy as np

import effnet
from benchmarks.harness import shared
from effnet.bundle.config import ModelConfig, write_config
from effnet.data.datasets import Split, read_dataset
from effnet.measurement.known.scores import fit_score, score_values
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.tasks.known import ARRAYS, SUMMED
from effnet.training.transfer.features import extract, make_extractor
from effnet.training.transfer.head import train_head
from effnet.weights.pretrained import adapted, load_backbone

_IMAGES, _TEMPERATURE = 84, 1.3


def worst_difference() -> float:
    """Return the largest difference of a file's score from numpy's, of all scores, as a share of max(1, its size).

    The file is of a Lite0 with a head on some images of photos7.
    """
    split = read_dataset(str(shared("data", "photos7")), seed=0).train
    rows = np.random.default_rng(0).permutation(len(split))[:_IMAGES]
    part = Split(sources=[split.sources[row] for row in rows], labels=split.labels[rows])
    weights = str(shared("weights", "tf_efficientnet_lite0_headless.safetensors"))
    found = load_backbone(weights, model=None)
    found = adapted(found, num_classes=7, in_channels=3, resolution=found.preprocess.resolution)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        extractor = make_extractor(found.spec, found.state, found.preprocess, folder / "backbone.onnx")
        features = extract(extractor, part, folder=folder).values
        head = train_head(features, part.labels, num_classes=7, val_features=features, val_labels=part.labels)
        state = dict(found.state) | {"classifier.weight": head.weight, "classifier.bias": head.bias}
        worst = 0.0
        for method in ARRAYS:
            score = fit_score(method, features, part.labels, scales=dict.fromkeys(SUMMED, (0.0, 1.0)))  # type: ignore[arg-type]
            config = ModelConfig(
                arch=found.spec, preprocess=found.preprocess, class_names=tuple("abcdefg"), known=score,
                temperature=_TEMPERATURE,
            )  # fmt: skip
            write_config(config, folder)
            export_onnx(folder, config, state)
            model = effnet.load(folder)
            got = np.concatenate([model.scores(model.prepare(source)[None]) for source in part.sources[:16]])
            wanted = score_values(score, features[:16], head.weight, head.bias, temperature=_TEMPERATURE)
            worst = max(worst, float((np.abs(got - wanted) / np.maximum(1, np.abs(wanted))).max()))
            print(f"  {method}: file {got[0]:.6f}, numpy {wanted[0]:.6f}")
    return worst
