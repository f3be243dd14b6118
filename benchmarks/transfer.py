"""`python -m benchmarks.transfer`: transfer learning against a plain timm script, whole processes to a scored model.

imagenette_mini (600 training and 300 held-out photographs of ten classes) from a real Lite0 backbone: `effnet fit`
against benchmarks/timm_finetune.py. The figure is the peer's time over effnet's. It counts as 0 if effnet is less
accurate than the peer, extracts features less than 3 times as fast as timm's eager network in batches of 32, or takes
1.5 GB of memory or more.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, finish, options, shared

GOAL, LEAST_SPEEDUP, MOST_MEMORY_MB = 20.0, 3.0, 1500.0
_BATCH, _ROUNDS = 32, 5


def main() -> None:
    """Run both sides in turn and compare."""
    args = options(__doc__ or "", n=2)
    data, weights = shared("data", "imagenette_mini"), shared("weights", "tf_efficientnet_lite0_headless.safetensors")
    samples: dict[str, list[float]] = {
        "effnet_seconds": [], "effnet_accuracy": [], "effnet_memory_mb": [], "timm_seconds": [], "timm_accuracy": [],
        "effnet_images_per_second": [], "timm_images_per_second": [],
    }  # fmt: skip
    for _ in range(args.n):
        for side, run in (("effnet", run_effnet), ("timm", run_timm)):
            for key, value in run(data, weights).items():
                samples[f"{side}_{key}"].append(value)
            print({key: round(values[-1], 4) for key, values in samples.items() if key.startswith(side) and values})
    time_extraction(samples, weights)
    middle = {key: statistics.median(values) for key, values in samples.items()}
    speedup = middle["effnet_images_per_second"] / middle["timm_images_per_second"]
    as_good = min(samples["effnet_accuracy"]) >= max(samples["timm_accuracy"])
    lean = max(samples["effnet_memory_mb"]) < MOST_MEMORY_MB
    print(f"features: {speedup:.2f} times timm's images/s (goal at least {LEAST_SPEEDUP:g})")
    print(f"memory: {max(samples['effnet_memory_mb']):.0f} MB (goal below {MOST_MEMORY_MB:g})")
    print(f"accuracy: {min(samples['effnet_accuracy']):.2%} against {max(samples['timm_accuracy']):.2%}")
    ratio = middle["timm_seconds"] / middle["effnet_seconds"]
    finish(
        "transfer", args, figure=ratio if as_good and lean and speedup >= LEAST_SPEEDUP else 0.0, goal=GOAL,
        unit="times faster", better="higher", samples=samples,
        details={"feature_speedup": speedup, "time_ratio": ratio},
    )  # fmt: skip


def run_effnet(data: Path, weights: Path) -> dict[str, float]:
    """Fit with an empty cache and return seconds, accuracy on the given held-out images and peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "bundle"
        words = ["-m", "effnet", "fit", data, "--weights", weights, "--out", out]
        seconds, memory_mb = run_child([sys.executable, *map(str, words)], cache=scratch)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "accuracy": report["test_accuracy"], "memory_mb": memory_mb}


def run_timm(data: Path, weights: Path) -> dict[str, float]:
    """Run the plain script and return seconds and accuracy on the same images."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        words = ["-m", "benchmarks.timm_finetune", data, weights, Path(scratch) / "model.pth"]
        seconds, _ = run_child([sys.executable, *map(str, words)], cache=scratch, log=log)
        found = json.loads(log.read_text(encoding="utf-8").strip().splitlines()[-1])
    return {"seconds": seconds, "accuracy": found["accuracy"]}


def run_child(command: list[str], *, cache: str, log: Path | None = None) -> tuple[float, float]:
    """Return the seconds of a command and the peak memory, in 10^6 bytes, of any one of its processes."""
    environment = {**os.environ, "EFFNET_CACHE": cache}
    with open(log or os.devnull, "wb") as output:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, cwd=ROOT, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss * unit / 1e6


def time_extraction(samples: dict[str, list[float]], weights: Path) -> None:
    """Add images per second of both frozen networks, on the same decoded images in batches of 32, in turn."""
    import torch

    from benchmarks.peers import import_timm
    from effnet.runtimes.onnxruntime.session import IMAGE, open_session
    from effnet.runtimes.pipeline import run_images
    from effnet.system.machine import usable_cores
    from effnet.tasks.task import FEATURES
    from effnet.training.transfer.features import make_extractor
    from effnet.weights.pretrained import load_pretrained

    peer = import_timm().create_model("tf_efficientnet_lite0", num_classes=0).eval()
    found = load_pretrained(str(weights))
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, 224, 224, 3), dtype=np.uint8)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
    with tempfile.TemporaryDirectory() as scratch:
        extractor = make_extractor(found.spec, found.state, found.preprocess, Path(scratch) / "backbone.onnx")
        session = open_session(extractor.path, threads=1)

    def ours() -> None:
        run_images(
            range(_BATCH), prepare=lambda i: images[i], compute=lambda x: session.run([FEATURES.name], {IMAGE: x})[0],
            workers=usable_cores(),
        )  # fmt: skip

    def theirs() -> None:
        with torch.inference_mode():
            peer(batch)

    ours()
    theirs()
    for _ in range(_ROUNDS):
        for side, run in (("effnet", ours), ("timm", theirs)):
            start = time.perf_counter()
            run()
            samples[f"{side}_images_per_second"].append(_BATCH / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
