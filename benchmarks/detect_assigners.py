"""`python -m benchmarks.detect_assigners --cache DIR`: which assignment of points learns more from few images.

Cards (the test split) and nuclei (15 % of the images, held out by seed), a real Lite0 backbone, one network and one
number of epochs: first the decoder alone is trained on the same kept feature maps, with ATSS and with the task-aligned
assignment, in turn; then each goes on with all of the network. The figure is the AP50 of the assigner that recipes
have, minus that of the other in points, after both stages: the mean over both sets and the seeds.
"""

import dataclasses
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.harness import cached, finish, options, shared
from effnet.arch.decoders.usual import with_detector
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.data.annotated.objects import listing_of
from effnet.data.annotated.read import read_annotated
from effnet.data.datasets import Dataset, split_listing
from effnet.data.preprocess import Preprocess
from effnet.nn.dense import DenseNetwork, build_dense
from effnet.planner.dense_recipe import dense_recipe
from effnet.training.detection.kept import KeptDataset, kept_dataset, kept_recipe
from effnet.training.detection.learning import bound
from effnet.training.loop import train
from effnet.training.recipe.boxes import Boxes
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.weights.pretrained import Pretrained, load_pretrained

GOAL, SIDE, EPOCHS = 0.0, 224, 8
SETS, ASSIGNERS = ("cards", "nuclei"), ("atss", "tal")
DEVICE = torch.device("cpu")
Row = dict[str, dict[str, float]]


def main() -> None:
    """Train with both assigners, in turn, and compare."""
    args = options(__doc__ or "", n=3, cache="finished draws")
    torch.set_num_threads(1)
    rows = {
        name: [cached(args.cache / f"{name}-{seed}.json", partial(row_of, name, seed)) for seed in range(args.n)]
        for name in SETS
    }
    samples = {
        f"{name}_{assigner}_{key}": [row[assigner][key] for row in found]
        for name, found in rows.items()
        for assigner in ASSIGNERS
        for key in found[0][assigner]
    }
    usual = Boxes().assigner
    (other,) = set(ASSIGNERS) - {usual}
    gains = [row[usual]["ap50"] - row[other]["ap50"] for found in rows.values() for row in found]
    finish(
        "detect_assigners", args, figure=statistics.mean(gains), goal=GOAL, unit="points", better="higher",
        samples=samples, details={"side": SIDE, "epochs": EPOCHS, "usual": usual, "gains": gains},
    )  # fmt: skip


def row_of(name: str, seed: int) -> Row:
    """Return the figures of each assigner in one draw."""
    source = str(shared("data", name))
    dataset = split_listing(listing_of(read_annotated(source), name=name, root=source), seed=seed)
    weights = load_pretrained(str(shared("weights", "tf_efficientnet_lite0_headless.safetensors")))
    preprocess = dataclasses.replace(weights.preprocess, resolution=SIDE, crop=1.0, mode="corner")
    model = made(weights, dataset, seed)
    recipe = dense_recipe(model.spec, epochs=EPOCHS, mirror_safe=dataset.mirror_safe, pretrained=True, seed=seed)
    kept = kept_dataset(model, dataset, recipe, preprocess, device=DEVICE)
    kept.views.get(), kept.held_out.get()  # not in the time of either
    row = {}
    for assigner in ASSIGNERS:
        chosen = with_values(recipe, {"boxes.assigner": assigner})
        row[assigner] = figures(made(weights, dataset, seed), kept, dataset, chosen, preprocess)
        print(name, seed, assigner, row[assigner], flush=True)
    return row


def figures(
    model: DenseNetwork, kept: KeptDataset, dataset: Dataset, recipe: Recipe, preprocess: Preprocess
) -> dict[str, float]:
    """Return AP and AP50 in percent on the test split after each stage, and the processor seconds of both."""
    start = time.process_time()
    first = learned(model, kept, kept_recipe(recipe, len(model.stages)), preprocess)
    decoder = tested(first, dataset, recipe, preprocess)
    model.load_state_dict(first.state_dict())
    model.requires_grad_(True)
    whole = tested(learned(model, dataset, recipe, preprocess), dataset, recipe, preprocess)
    return {
        "decoder_ap50": 100 * decoder.ap50, "decoder_ap": 100 * decoder.ap, "ap50": 100 * whole.ap50,
        "ap": 100 * whole.ap, "cpu_seconds": time.process_time() - start,
    }  # fmt: skip


def learned(model: nn.Module, dataset: Dataset, recipe: Recipe, preprocess: Preprocess) -> nn.Module:
    """Return the model of the best epoch."""
    with tempfile.TemporaryDirectory() as scratch:
        return train(model, dataset, recipe, preprocess, folder=Path(scratch), device=DEVICE).model


def tested(model: nn.Module, dataset: Dataset, recipe: Recipe, preprocess: Preprocess) -> Any:
    """Return the result on the test split."""
    learning = bound(dataset)
    held_out = learning.inputs.held_out(dataset.test, recipe, preprocess, batch_size=8, limit=0)
    return learning.validate(model, held_out(), preprocess, DEVICE)


def made(weights: Pretrained, dataset: Dataset, seed: int) -> DenseNetwork:
    """Return a detector with the pretrained backbone and a new decoder."""
    spec = with_detector(dataclasses.replace(weights.spec, resolution=SIDE), len(dataset.class_names))
    network = build_dense(spec, seed=seed)
    backbone = {key: array for key, array in weights.state.items() if key.startswith(("stem.", "stages."))}
    load_arrays_(network, state_arrays(network) | backbone, where=weights.source)
    return network


if __name__ == "__main__":
    main()
