"""`python -m benchmarks.users`: what users bring, through the command line, and how much of it goes as they expect.

Every situation is made in a folder of its own and given to effnet as a user would: layouts of folders, values, shapes,
tables, checkpoints, minutes, and broken files that once went wrong. Counted are those without a fault: the exit code,
the message and the bundle are what they must be, nothing ends in a traceback, and time and memory are kept.
`--only TEXT` runs the situations whose item or name has it.
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
    """Try every situation and print those that go wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a situation goes wrong")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/users.json")
    parser.add_argument("--only", default="", help="run the situations whose item or name has this text")
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
