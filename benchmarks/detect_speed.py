"""`python -m benchmarks.detect_speed --cache DIR`: a detector beside its backbone, and beside EfficientDet-Lite0.

Lite0 at 320 pixels, int8, one thread, in ONNX Runtime and LiteRT: the detector of six classes with a pyramid of 64
channels, as EfficientDet-Lite0 has, with its post-processing of 1,000 candidates, and the backbone alone. Beside them
the detector that `effnet fit` chose, in int8 for ONNX Runtime, which `detect_cards` and `detect_int8` left in DIR; and
effdet's EfficientDet-Lite0 through torch.onnx in ONNX Runtime with effdet's post-processing, whose AP after twice the
minutes is in DIR. All take turns, `--n` rounds. The figure is the larger ratio of the detector to the backbone; it is
99 if the post-processing takes more than 2 ms, or effdet's detector has a higher AP than effnet's, is less than 3 times
as slow, or its file is less than 4 times as large.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.detect_rivals_speed import export_effdet
from benchmarks.harness import finish, options
from effnet.arch.catalog import get_spec
from effnet.arch.decoders.usual import with_detector
from effnet.measurement.in_image import seconds_of
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.runtimes.registry import find_format
from effnet.runtimes.untrained import write_graph
from effnet.tasks.boxes.candidates import detect
from effnet.tasks.boxes.points import decode_points, points

GOAL, MOST_AFTER_MS, LEAST_TIMES, MOST_SIZE = 1.3, 2.0, 3.0, 0.25
SIDE, CLASSES, CHANNELS, CANDIDATES, OBJECTS = 320, 6, 64, 1000, 100
RUNTIMES = ("onnxruntime", "litert")


def main() -> None:
    """Measure all files in turns, and compare."""
    args = options(__doc__ or "", n=7, cache="folder of detect_cards and detect_int8")
    fitted = args.cache / "cards-int8-0" / find_format("onnx-int8").file
    found = {kind: json.loads((args.cache / f"cards-{kind}-0.json").read_text()) for kind in ("int8", "effdet")}
    aps = {"effnet": found["int8"]["onnx-int8"]["ap"], "effdet": found["effdet"]["ap"]}
    backbone = dataclasses.replace(get_spec("lite0"), resolution=SIDE, head_channels=0, num_classes=CLASSES)
    detector = with_detector(backbone, CLASSES, channels=CHANNELS)
    samples: dict[str, list[float]] = {f"{runtime}_ratio": [] for runtime in RUNTIMES}
    samples |= {"after_ms": [], "effdet_ms": [], "fitted_ms": [], "at_320_ms": []}
    with tempfile.TemporaryDirectory() as scratch:
        paths = {"fitted": fitted}
        for runtime in RUNTIMES:
            for name, spec in (("backbone", backbone), ("detector", detector)):
                folder = Path(scratch) / f"{runtime}-{name}"
                folder.mkdir()
                paths[f"{runtime} {name}"] = write_graph(spec, folder, runtime=runtime, precision="int8")
        rival = export_effdet(Path(scratch) / "effdet.onnx")
        sizes = [each.stat().st_size for each in (fitted, paths["onnxruntime detector"], rival.path)]
        for _ in range(args.n):
            timings = Stopwatch().in_turns(paths, rounds=1)
            after = after_ms()
            taken = {name: timing.p50_ms for name, timing in timings.items()}  # type: ignore[union-attr]
            for runtime in RUNTIMES:
                ratio = (taken[f"{runtime} detector"] + after) / taken[f"{runtime} backbone"]
                samples[f"{runtime}_ratio"].append(ratio)
            samples["after_ms"].append(after)
            samples["fitted_ms"].append(taken["fitted"] + after)
            samples["at_320_ms"].append(taken["onnxruntime detector"] + after)
            samples["effdet_ms"].append(rival_ms(rival.run))
            print({name: round(ms, 2) for name, ms in taken.items()}, f"after {after:.2f} ms", flush=True)
    ratios = {runtime: statistics.median(samples[f"{runtime}_ratio"]) for runtime in RUNTIMES}
    after = statistics.median(samples["after_ms"])
    times, times_at_320 = (
        statistics.median(np.divide(samples["effdet_ms"], samples[own])) for own in ("fitted_ms", "at_320_ms")
    )
    size = sizes[0] / sizes[-1]
    print(
        f"{ratios}; after the network {after:.2f} ms; effdet takes {times:.2f} times as long as what fit chose "
        f"({times_at_320:.2f} at 320 px), whose file is {size:.3f} of its size; AP {aps}"
    )
    goals = {
        f"{after:.2f} ms after the network, of at most {MOST_AFTER_MS:g}": after <= MOST_AFTER_MS,
        f"effdet takes {times:.2f} times as long, of at least {LEAST_TIMES:g}": times >= LEAST_TIMES,
        f"the file has {size:.3f} of effdet's size, of at most {MOST_SIZE:g}": size <= MOST_SIZE,
        f"effdet's AP of {aps['effdet']:.1f} must not be above {aps['effnet']:.1f}": aps["effdet"] <= aps["effnet"],
    }
    finish(
        "detect_speed", args, figure=max(ratios.values()), goal=GOAL, unit="of the backbone",
        better="lower", samples=samples, details={
            "times": times, "times_at_320": times_at_320, "size": size, "bytes": sizes, "ap": aps,
        }, missed=[words for words, reached in goals.items() if not reached],
    )  # fmt: skip


def after_ms() -> float:
    """Return the time from raw outputs with 1,000 candidates, of 100 objects, to the boxes, in milliseconds."""
    rng = np.random.default_rng(0)
    places = points(SIDE, SIDE)
    logits = rng.normal(-8.0, 1.0, (len(places), CLASSES)).astype(np.float32)
    objects = rng.uniform(0, SIDE, (OBJECTS, 2))
    near = ((places.centres[:, None] - objects) ** 2).sum(2).min(1).argsort()[:CANDIDATES]
    logits[near, rng.integers(0, CLASSES, CANDIDATES)] = rng.normal(0.5, 1.0, CANDIDATES)
    raw = rng.normal(1.0, 0.3, (len(places), 4)).astype(np.float32)

    def run() -> None:
        detect(raw, logits, lambda rows, at: decode_points(rows, places.centres[at], places.strides[at]))

    return 1e3 * min(seconds_of(run) for _ in range(20))


def rival_ms(run: Callable[[], object], *, runs: int = 15) -> float:
    """Return the median time of one image, boxes included, in milliseconds."""
    run()
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken)


if __name__ == "__main__":
    main()
