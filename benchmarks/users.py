"""`python -m benchmarks.users`: inputs of real users, through the command line, and how many work as they expect.

Every situation is created in its own folder and given to effnet as a user would: folder layouts, pixel values, shapes,
tables, checkpoints, minutes, and broken files that failed once. The figure counts those without a fault: exit code,
message and bundle are correct, nothing ends in a traceback, and the limits of time and memory are met.
`--only TEXT` runs the situations whose item or name contains it.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.attacks.ground import attacked
from benchmarks.harness import finish
from benchmarks.hostile import make_bundle
from benchmarks.situations import checkpoints, layouts, limits, values

SITUATIONS = tuple(one for module in (layouts, values, checkpoints, limits) for one in module.SITUATIONS)


def main() -> None:
    """Try every situation and print those that fail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a situation fails")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/users.json")
    parser.add_argument("--only", default="", help="run the situations whose item or name contains this text")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="effnet-users-") as name:
        bundle = make_bundle(Path(name))
        rows = [attacked(one, bundle) for one in SITUATIONS if args.only in f"{one.item} {one.name}"]
    behaves = [float(not row["faults"]) for row in rows]
    finish(
        "users", args, figure=sum(behaves), goal=float(len(behaves)),
        unit=f"situations of {len(behaves)} as users expect", better="higher",
        samples={"behaves": behaves}, details={"situations": rows},
    )  # fmt: skip


if __name__ == "__main__":
    main()
