"""Made-up answers of several outputs, their score, and a report on them."""

import numpy as np
from pages import sample

from effnet.data.datasets import Split
from effnet.data.several.outputs import OutputSpec, column_names, placed
from effnet.measurement.several import score as several
from effnet.measurement.several.text import warnings_of
from effnet.system.records import to_data

SPECS = (
    OutputSpec(name="kind", kind="one", classes=("boot", "shoe", "sock")),
    OutputSpec(name="scene", kind="many", classes=("sea", "sun", "tree"), thresholds=(0.5, 0.3, 0.7)),
    OutputSpec(name="year", kind="number"),
)


def made(count, *, specs=SPECS, seed=0, strength=2.0, unknown=0.3):
    """Return rows and targets of `count` images, the share `unknown` of each output's cells NaN."""
    rng = np.random.default_rng(seed)
    rows, targets = [], []
    for spec in specs:
        if spec.kind == "one":
            label = rng.integers(0, len(spec.classes), count)
            logits = strength * np.eye(len(spec.classes))[label] + rng.normal(0, 1, (count, len(spec.classes)))
            rows.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
            targets.append(label[:, None].astype(float))
        elif spec.kind == "many":
            on = rng.random((count, len(spec.classes))) < 0.3
            noisy = strength * (2 * on - 1) + rng.normal(0, 1.5, on.shape)
            rows.append(np.round(1 / (1 + np.exp(-noisy)), 2))  # rounded, so that some are equal
            targets.append(on.astype(float))
        else:
            number = rng.normal(2010, 3, (count, 1))
            rows.append(number + rng.normal(0, 3 / strength, (count, 1)))
            targets.append(number)
    for target in targets:
        target[rng.random(count) < unknown] = np.nan
    return np.concatenate(rows, axis=1), np.concatenate(targets, axis=1)


def scored(rows, targets, specs=SPECS, **kwargs):
    """Return the score of rows against targets."""
    names = [f"{i}.png" for i in range(len(rows))]
    return several.score(rows, Split(sources=names, labels=targets), specs, **kwargs)


def parts(rows, targets, specs=SPECS):
    """Yield the known rows and targets of each output."""
    for place in placed(specs):
        part, target = rows[:, place.columns], targets[:, place.targets]
        known = ~np.isnan(target[:, 0])
        yield part[known], target[known]


def report_of(score, specs=SPECS):
    """Return a whole report of several outputs as report.json holds it."""
    some = {key: value for key, value in sample().items() if not key.startswith("test_")}
    epochs = [
        {key: value for key, value in epoch.items() if key != "val_accuracy"} | {"val_mean_score": 0.5}
        for epoch in some["training"]["epochs"]
    ]
    return some | {
        "task": "several",
        "test_mean_score": to_data(score.mean_score),
        "test": to_data(score),
        "dataset": some["dataset"] | {"class_names": list(column_names(specs))},
        "training": some["training"] | {"epochs": epochs},
        "warnings": warnings_of(score),
    }
