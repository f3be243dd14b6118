"""`python -m benchmarks.unknowns`: does the score that effnet chooses find images of unknown classes?

Classes of photos7, imagenette_mini and 15 types of fashion articles are held out, others in each draw; a head is fitted
on the features that a real Lite0 gives of some images of the rest. Each score must tell the other images of the rest
from those of the held-out classes: its AUROC is the truth. `leave_one_out` sees the training images alone; it estimates
the AUROC of each score, and chooses one. The figure is the AUROC of the chosen score less that of the largest
probability, in points, the mean of all draws. Other goals: no draw below -0.5; the mean estimate of the chosen score at
most 4 points from the truth on each set; the score of an exported file within 1e-4 of numpy's. `gain_if_careful` is
that of a rule by which the difference of the estimates must be two standard errors besides.

Strangers of another set are compared too: imagenette_mini against a head on photos7, without its church (a building)
and its garbage truck (a vehicle), and with them: known classes among the strangers make any score look bad.
"""

import csv
import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import finish, options, shared
from benchmarks.unknowns_file import worst_difference
from effnet.data.datasets import read_dataset
from effnet.jobs.audit.api import images_of
from effnet.measurement.classification.calibration import fit_temperature
from effnet.measurement.classification.unknown import area_under_roc
from effnet.measurement.known.choice import GAIN, choose_method
from effnet.measurement.known.scores import fit_score, log_odds, score_values
from effnet.tasks.known import TITLES, Method
from effnet.training.transfer.head import train_head
from effnet.training.transfer.leave_one_out import LeftOut, leave_one_out

GOAL, LEAST, MOST_OFF, MOST_DIFFERENCE = 1.0, -0.5, 4.0, 1e-4
FASHION, A_TYPE, SIDE = 15, 80, 128
TRAIN, VAL = 0.6, 0.15
HELD = 0.3
KNOWN_STRANGERS = ("n03028079", "n03417042")
"""The church and the garbage truck of imagenette_mini."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The features [images, channels] and the classes [images] of a set, whose names are `names`."""

    features: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A head on some images of the known classes, and its temperature; `test` are features of others."""

    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    temperature: float
    test: np.ndarray

    def areas(self, strange: np.ndarray, left: LeftOut) -> dict[Method, float]:
        """Return the AUROC of each score against the features of strangers, in percent."""
        found: dict[Method, float] = {}
        for method in TITLES:
            if method == "probability":
                known, unknown = (self._odds(part) for part in (self.test, strange))
            else:
                score = fit_score(method, self.features, self.labels, scales=left.scales)
                known, unknown = (
                    score_values(score, part, self.weight, self.bias, temperature=self.temperature)
                    for part in (self.test, strange)
                )
            found[method] = 100 * area_under_roc(known, unknown)
        return found

    def _odds(self, features: np.ndarray) -> np.ndarray:
        return log_odds((features.astype(np.float64) @ self.weight.T + self.bias) / self.temperature)


def main() -> None:
    """Draw classes of each set, choose and judge."""
    args = options(__doc__ or "", n=10, cache="features of the sets")
    args.cache.mkdir(parents=True, exist_ok=True)
    sets = {name: _images(name, args.cache) for name in ("photos7", "imagenette_mini", "fashion")}
    samples: dict[str, list[float]] = defaultdict(list)
    for name, images in sets.items():
        for seed in range(args.n):
            row = _drawn(images, seed)
            for key, value in row.items():
                samples[f"{name}_{key}"].append(value)
            print(name, seed, {key: round(value, 1) for key, value in row.items()}, flush=True)
    for name in ("clean", "contaminated"):
        row = _strangers(sets["photos7"], sets["imagenette_mini"], KNOWN_STRANGERS if name == "clean" else ())
        samples |= {f"strangers_{name}_{key}": [value] for key, value in row.items()}
        print(name, {key: round(value, 1) for key, value in row.items()}, flush=True)
    gains = [gain for name in sets for gain in samples[f"{name}_gain"]]
    off = {name: float(np.mean(samples[f"{name}_estimate"]) - np.mean(samples[f"{name}_truth"])) for name in sets}
    careful = [gain for name in sets for gain in samples[f"{name}_gain_if_careful"]]
    print(f"with standard errors: mean {np.mean(careful):.2f}, least {min(careful):.2f}")
    difference = worst_difference()
    print(f"least gain {min(gains):.2f}; estimate less truth {off}; file against numpy {difference:.2g}")
    goals = {
        f"least gain {min(gains):.2f} points, of at least {LEAST:g}": min(gains) >= LEAST,
        f"estimate {max(map(abs, off.values())):.1f} points off, of at most {MOST_OFF:g}": max(map(abs, off.values()))
        <= MOST_OFF,
        f"file {difference:.2g} from numpy, of at most {MOST_DIFFERENCE:g}": difference <= MOST_DIFFERENCE,
    }
    finish(
        "unknowns", args, figure=float(np.mean(gains)), goal=GOAL,
        unit="points of AUROC over the largest probability", better="higher", samples=samples,
        details={"least": min(gains), "off": off, "file_difference": difference,
                 "mean_if_careful": float(np.mean(careful)), "least_if_careful": min(careful)},
        missed=[words for words, reached in goals.items() if not reached],
    )  # fmt: skip


def _drawn(images: Images, seed: int) -> dict[str, float]:
    """Return the truth and the estimates of a draw, in percent: `gain` is the chosen one's over the probability's."""
    rng = np.random.default_rng(seed)
    classes = np.unique(images.labels)
    held = rng.permutation(classes)[: round(HELD * len(classes))]
    strange = np.isin(images.labels, held)
    fitted = _fitted(images.features[~strange], images.labels[~strange], rng)
    left = leave_one_out(fitted.features, fitted.labels, seed=seed)
    truth = fitted.areas(images.features[strange], left)
    chosen = choose_method(left.estimates)
    guess = {estimate.method: 100 * estimate.auroc for estimate in left.estimates}
    errors = {estimate.method: 200 * estimate.error for estimate in left.estimates}
    sure = {name: value for name, value in guess.items() if value - guess["probability"] >= errors[name]}
    careful = max(sure, key=lambda method: sure[method] - 100 * GAIN * (method != "probability"))
    print(f"  {chosen}", end=" ")
    return {
        "gain": truth[chosen] - truth["probability"],
        "gain_if_careful": truth[careful] - truth["probability"],
        "estimate": guess[chosen],
        "truth": truth[chosen],
        **{f"true_{method}": value for method, value in truth.items()},
        **{f"estimated_{method}": value for method, value in guess.items()},
    }


def _fitted(features: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Fitted:
    """Split the images of each class, and fit a head as `fit` does."""
    part = np.full(len(labels), 2)
    present, labels = np.unique(labels, return_inverse=True)
    for label in range(len(present)):
        own = rng.permutation(np.flatnonzero(labels == label))
        first, second = round(TRAIN * len(own)), round((TRAIN + VAL) * len(own))
        part[own[:first]], part[own[first:second]] = 0, 1
    train, val, test = (part == number for number in range(3))
    head = train_head(
        features[train], labels[train], num_classes=len(present), val_features=features[val], val_labels=labels[val]
    )
    temperature = fit_temperature(features[val] @ head.weight.T + head.bias, labels[val])
    return Fitted(
        features=features[train], labels=labels[train], weight=head.weight, bias=head.bias, temperature=temperature,
        test=features[test],
    )  # fmt: skip


def _strangers(known: Images, other: Images, without: tuple[str, ...]) -> dict[str, float]:
    """Return the AUROC of each score of a head on one set against the images of another, `without` some classes."""
    fitted = _fitted(known.features, known.labels, np.random.default_rng(0))
    left_out = np.isin(other.labels, [other.names.index(name) for name in without])
    left = leave_one_out(fitted.features, fitted.labels)
    return dict(fitted.areas(other.features[~left_out], left))


def _images(name: str, cache: Path) -> Images:
    """Return the features of a set, kept in the cache."""
    path = cache / f"{name}.npz"
    if not path.is_file():
        weights = str(shared("weights", "tf_efficientnet_lite0_headless.safetensors"))
        with tempfile.TemporaryDirectory() as scratch:
            data = _fashion(Path(scratch) / "fashion.csv") if name == "fashion" else shared("data", name)
            dataset = read_dataset(str(data), seed=0)
            found = images_of(dataset, weights, None, side=SIDE if name == "fashion" else None)
        np.savez(path, features=found.features, labels=found.labels, names=np.array(dataset.class_names))
    with np.load(path) as kept:
        return Images(features=kept["features"], labels=kept["labels"], names=tuple(map(str, kept["names"])))


def _fashion(path: Path) -> Path:
    """Write a manifest of the most frequent types of articles, with some images of each."""
    folder, found = shared("data", "fashion"), defaultdict(list)
    with open(folder / "fashion.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found[row["articleType"]].append(os.path.join(folder, row["path"]))
    rng = np.random.default_rng(0)
    types = sorted(found, key=lambda name: (-len(found[name]), name))[:FASHION]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for name in types:
            writer.writerows([place, name] for place in rng.permutation(found[name])[:A_TYPE])
    return path


if __name__ == "__main__":
    main()
