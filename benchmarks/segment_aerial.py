"""`python -m benchmarks.segment_aerial`: segmenters of aerial images, split by tile, trained the same processor time.

From a real Lite0 backbone: a pyramid at stride 4, a separable U-Net at stride 2, and the U-Net of
segmentation_models_pytorch (0.24 GMAC and 4 GMAC; the same layers, effnet.weights.schemes.smp), each by the same recipe
for `--minutes` minutes of two cores, validation included. Tiles 1 to 4 are for training, 5 chooses the epoch, 6 is the
test. The figure is the test mIoU of the better of effnet's two, in percentage points above that of the other U-Net; its
latency, of one window in ONNX Runtime on one thread, measured in turns, must be at most a fifth.
"""

import argparse
import dataclasses
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import effnet
from benchmarks.harness import cached, finish, shared
from effnet.arch.decoders.usual import with_segmenter
from effnet.arch.spec import ArchSpec
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.data.annotated.masks.codes import MaskCode, colour_of
from effnet.data.annotated.masks.folder import read_mask_set
from effnet.data.annotated.masks.labels import listing_of_masks
from effnet.data.datasets import Dataset, split_listing
from effnet.data.preprocess import Preprocess
from effnet.nn.dense import build_dense
from effnet.planner.dense_recipe import dense_recipe
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.runtimes.onnxruntime.session import IMAGE, open_session
from effnet.training.loop import train
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.segmentation.inputs import held_out
from effnet.training.segmentation.validated import validate
from effnet.weights.folding import fold_norms
from effnet.weights.schemes.smp import unet

GOAL, LATENCY_SHARE = -2.0, 0.2
KINDS = ("pyramid", "unet", "smp")
CLASSES = {"building": "#3C1098", "land": "#8429F6", "road": "#6EC1E4", "vegetation": "#FEDD3A", "water": "#E2A929"}
UNLABELED = "#9B9B9B"
TILES = {"1": "train", "2": "train", "3": "train", "4": "train", "5": "val", "6": "test"}
_CPU = torch.device("cpu")


def main() -> None:
    """Train each kind of network with each seed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/segment_aerial.json")
    parser.add_argument("--n", type=int, default=3, help="number of seeds")
    parser.add_argument("--minutes", type=float, default=20.0, help="training time on two cores")
    parser.add_argument("--kinds", default=",".join(KINDS), help="train these alone, and compare nothing")
    parser.add_argument("--side", type=int, default=320, help="side of a window in pixels")
    parser.add_argument("--scale", type=float, default=0.5, help="pixels of the input per pixel of an image")
    parser.add_argument("--cache", type=Path, help="folder of finished runs, from which a stopped benchmark goes on")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="another value of the recipe")
    args = parser.parse_args()
    dataset, kinds = by_tile(), args.kinds.split(",")
    samples: dict[str, list[float]] = {f"{kind}_miou": [] for kind in kinds}
    for seed in range(args.n):
        for kind in kinds:
            samples[f"{kind}_miou"].append(100 * miou_of(kind, dataset, seed, args))
    if set(kinds) != set(KINDS):
        return
    samples |= latencies(dataset, args)
    miou = {kind: float(np.mean(samples[f"{kind}_miou"])) for kind in KINDS}
    best = max(KINDS[:2], key=lambda kind: miou[kind])
    share = float(np.median(np.divide(samples[f"{best}_latency_ms"], samples["smp_latency_ms"])))
    missed = (
        [f"{share:.3f} of the latency of smp's U-Net, of at most {LATENCY_SHARE:g}"] if share > LATENCY_SHARE else []
    )
    finish(
        "segment_aerial", args, figure=miou[best] - miou["smp"], goal=GOAL, unit="pp", better="higher", samples=samples,
        details={
            "minutes": args.minutes, "side": args.side, "scale": args.scale, "best": best, "latency_share": share,
        }, missed=missed,
    )  # fmt: skip


def by_tile() -> Dataset:
    """Return the images of tiles 1 to 6; parts of one tile overlap in content."""
    code = MaskCode(
        kind="colour",
        class_names=tuple(CLASSES),
        codes=tuple(map(colour_of, CLASSES.values())),
        ignored=(colour_of(UNLABELED),),
    )
    found = read_mask_set(str(shared("data", "aerial")), code=code)
    images = [image for part in found.parts.values() for image in part]
    parts = {
        split: tuple(i for i in images if TILES.get(re.search(r"tile(\d)", i.path)[1]) == split)  # type: ignore[index]
        for split in ("train", "val", "test")
    }
    return split_listing(listing_of_masks(dataclasses.replace(found, parts=parts), name="aerial"), seed=0)


def network(kind: str, dataset: Dataset, side: int, seed: int) -> tuple[torch.nn.Module, ArchSpec, Preprocess]:
    """Return a network with the pretrained backbone, its spec and its preprocessing, without a scale."""
    weights = shared("weights", "tf_efficientnet_lite0_headless.safetensors")
    backbone = effnet.create_model(weights, num_classes=0)
    plain = dataclasses.replace(backbone.spec, resolution=side)
    classes = len(dataset.class_names)
    if kind == "smp":
        spec = unet(plain, scheme="smp_tu", num_classes=classes)
        spec = dataclasses.replace(spec, norm_epsilon=plain.norm_epsilon)  # that of the backbone's weights
    else:
        spec = with_segmenter(plain, classes, kind="pyramid" if kind == "pyramid" else "unet")
    found = build_dense(spec, seed=seed)
    own = {k: v for k, v in state_arrays(backbone).items() if k.startswith(("stem.", "stages."))}
    load_arrays_(found, state_arrays(found) | own, where=str(weights))
    preprocess = Preprocess(
        resolution=side, crop=1.0, mode="corner", interpolation="bilinear", mean=backbone.preprocess.mean,
        std=backbone.preprocess.std,
    )  # fmt: skip
    return found, spec, preprocess


def miou_of(kind: str, dataset: Dataset, seed: int, args: argparse.Namespace) -> float:
    """Return what `measured` does, or did for a finished run in `args.cache`."""
    if not args.cache:
        return measured(kind, dataset, seed, args)
    words = [kind, f"{args.minutes:g}", str(args.side), f"{args.scale:g}", str(seed), *args.set]
    path = args.cache / f"aerial-{'-'.join(words)}.json"
    return float(cached(path, lambda: {"miou": measured(kind, dataset, seed, args)})["miou"])


def measured(kind: str, dataset: Dataset, seed: int, args: argparse.Namespace) -> float:
    """Train one network and return its test mIoU."""
    module, spec, preprocess = network(kind, dataset, args.side, seed)
    preprocess = dataclasses.replace(preprocess, scale=args.scale)
    recipe = recipe_for(spec, 1, seed, args)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.process_time()  # of an epoch, to know how many there is time for
        train(module, dataset, recipe, preprocess, folder=Path(scratch) / "one", device=_CPU)
        spent = time.process_time() - start
        epochs = max(1, int(args.minutes * 120 / spent) - 1)
        module, spec, _ = network(kind, dataset, args.side, seed)
        start = time.process_time()
        result = train(
            module, dataset, recipe_for(spec, epochs, seed, args), preprocess, folder=Path(scratch) / "all", device=_CPU
        )
        seconds = time.process_time() - start
        images = held_out(dataset.test, recipe, preprocess, batch_size=16, limit=10**9)()
        score = validate(result.model, images, preprocess, _CPU)
    print(
        f"seed {seed} {kind}: {score.words} on tile 6, {epochs} epochs in {seconds:.0f} s of processor time, best "
        f"{result.best_epoch}",
        flush=True,
    )
    return score.miou


def recipe_for(spec: ArchSpec, epochs: int, seed: int, args: argparse.Namespace) -> Recipe:
    """Return effnet's recipe for segmenters with quarter turns, since aerial images have no up."""
    recipe = dense_recipe(spec, epochs=epochs, mirror_safe=True, pretrained=True, seed=seed)
    given = dict(text.split("=", 1) for text in args.set)
    values = {name: float(value) if "." in value else int(value) for name, value in given.items()}
    return with_values(recipe, {"masks.quarter_turns": True, "masks.scale": args.scale} | values)


def latencies(
    dataset: Dataset, args: argparse.Namespace, *, rounds: int = 10, runs: int = 10
) -> dict[str, list[float]]:
    """Return the milliseconds of one window in ONNX Runtime on one thread, in turns; they do not depend on training."""
    sessions, found = {}, {f"{kind}_latency_ms": list[float]() for kind in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            module, spec, preprocess = network(kind, dataset, args.side, 0)
            path = Path(scratch) / f"{kind}.onnx"
            weights = fold_norms(spec, state_arrays(module))
            write_onnx(to_onnx(spec, weights, mean=preprocess.mean, std=preprocess.std), path, durable=False)
            sessions[kind] = open_session(path)
    image = np.random.default_rng(0).integers(0, 256, (1, *preprocess.size, 3), dtype=np.uint8)
    for _ in range(rounds + 1):
        for kind, session in sessions.items():
            taken = []
            for _ in range(runs):
                start = time.perf_counter()
                session.run(None, {IMAGE: image})
                taken.append(1e3 * (time.perf_counter() - start))
            found[f"{kind}_latency_ms"].append(float(np.median(taken)))
    return {name: values[1:] for name, values in found.items()}  # the first round warms


if __name__ == "__main__":
    main()
