"""`python -m benchmarks.hostile`: inputs of an adversary and of an unlucky user, through the command line.

Every attack is created in its own folder and given to effnet as a user would. The figure counts attacks without a
fault: no foreign code runs, no private file is read, nothing crashes, hangs for 60 s, takes more than 1 GB or ends in a
traceback, and the exit code and message are as promised. The last attacks are 10,000 mutated files through all readers.
`--only TEXT` runs the attacks whose name or item contains it; `--mutants N` sets the number of mutated files.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.attacks import code, images, models, network, processes, users, weights
from benchmarks.attacks.fuzz import COUNTS, fuzz
from benchmarks.attacks.ground import attacked, environment, tell
from benchmarks.harness import finish

ATTACKS = tuple(
    attack for module in (code, weights, models, images, processes, network, users) for attack in module.ATTACKS
)


def main() -> None:
    """Run every attack and print those that found a fault."""
    args = _options()
    with tempfile.TemporaryDirectory(prefix="effnet-hostile-") as name:
        bundle = make_bundle(Path(name))
        rows = [attacked(attack, bundle) for attack in ATTACKS if args.only in f"{attack.item} {attack.name}"]
        total = sum(COUNTS.values())
        for kind, count in COUNTS.items():
            if args.only in f"mutants of {kind}" and (share := round(count * args.mutants / total)):
                rows.append(_fuzzed(kind, Path(name), share))
    withstood = [float(not row["faults"]) for row in rows]
    finish(
        "hostile", args, figure=sum(withstood), goal=float(len(withstood)),
        unit=f"attacks of {len(withstood)} withstood", better="higher",
        samples={"withstood": withstood}, details={"attacks": rows, "mutants": args.mutants},
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 if an attack finds a fault")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/hostile.json")
    parser.add_argument("--only", default="", help="run the attacks whose item or name contains this text")
    parser.add_argument("--mutants", type=int, default=sum(COUNTS.values()), help="number of mutated files")
    return parser.parse_args()


def make_bundle(folder: Path) -> Path:
    """Return a bundle with a real fit of the digits and an export in every format, made in separate processes."""
    bundle = folder / "bundle"
    for words in (
        ("fit", "digits", "--set", "fit.max_params=20000", "--epochs", "1", "--weights", "none", "--out", bundle),
        ("export", bundle, "--to", "all", "--data", "digits", "--set", "images=16", "--max-drop", "100"),
    ):
        subprocess.run([sys.executable, "-m", "effnet", *map(str, words)], check=True, env=environment({}),
                       stdout=subprocess.DEVNULL)  # fmt: skip
    shutil.rmtree(bundle / "run")
    return bundle


def _fuzzed(kind: str, folder: Path, count: int) -> dict[str, object]:
    start = time.monotonic()
    place = folder / f"fuzz-{kind}"
    shutil.copytree(folder / "bundle", place / "bundle")
    found = fuzz(kind, place, count=count)
    row = {
        "item": 0,
        "name": f"{count} mutants of {kind}",
        "commands": count,
        "longest_s": round(found.slowest_seconds, 2),
        "peak_mb": round(found.peak_mb),
        "faults": list(found.faults)[:20],
    }
    tell(row, time.monotonic() - start)
    return row


if __name__ == "__main__":
    main()
