"""Sounds of a machine hall: a fit of WAV files of several rates, and predictions of new sounds without torch.

python examples/sound.py --out effnet-sounds      (it needs effnet[train,audio], and makes its own sounds)
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import effnet

KINDS = ("siren", "knock", "hiss", "hum")


def sound(kind: str, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return about a second of a sound in background noise, float [samples]."""
    time = np.arange(int(rate * rng.uniform(0.8, 1.5))) / rate
    if kind == "siren":
        pitch, swing = rng.uniform(700, 1100), rng.uniform(2, 5)
        wave = np.sin(2 * np.pi * pitch * time + 150 / swing * np.sin(2 * np.pi * swing * time))
    elif kind == "knock":
        starts = rng.uniform(0, time[-1], 5)[:, None]
        since = np.maximum(0, time - starts)
        wave = (np.exp(-50 * since) * np.sin(2 * np.pi * rng.uniform(200, 500) * since)).sum(axis=0)
    elif kind == "hiss":
        wave = np.diff(rng.normal(0, 0.5, len(time) + 1))
    else:
        wave = sum(np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in (1, 2, 3, 5))
    return 0.3 * rng.uniform(0.3, 1) * wave + rng.normal(0, 0.02, len(time))


def write(path: Path, wave: np.ndarray, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="PCM_24")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("effnet-sounds"))
parser.add_argument("--sounds", type=int, default=80)
parser.add_argument("--epochs", type=int, default=30)
args = parser.parse_args()

rng = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as root:
    for kind in KINDS:
        for number in range(args.sounds):
            rate = (8_000, 16_000, 44_100, 48_000)[number % 4]
            write(Path(root, "hall", kind, f"{number:03d}.wav"), sound(kind, rate, rng), rate)
    report = effnet.fit(Path(root, "hall"), weights="none", max_macs=5e6, epochs=args.epochs, out=args.out).report
    print(*report.dataset.notes, f"test accuracy {report.test.accuracy:.1%}", sep="\n")
    write(Path(root, "new.wav"), np.stack([sound("siren", 22_050, rng)] * 2, axis=1), 22_050)
    print("a new sound, in stereo:", effnet.load(args.out).predict(Path(root, "new.wav"))[0].label)
