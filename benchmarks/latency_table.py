"""`python -m benchmarks.latency_table`: error of the latency and memory that a profile predicts.

The benchmark profiles this machine. Then it predicts and measures random networks of the search space, none of which
the profile measured, each in a fresh process, in `--n` rounds and longer under background load; the fastest measurement
of a network counts. The figure is the median relative error of the latencies in percent: at most 8, and 5 is desired.
The median error of their memory is printed too and must be at most 10 %. `--profile FILE` uses an existing profile.
"""

import argparse
import random
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import finish
from effnet.arch.spec import ArchSpec
from effnet.jobs.profile import PLAN, profile
from effnet.measurement.profile.networks import random_network
from effnet.measurement.profile.profile import DeviceProfile, read_profile
from effnet.measurement.profile.table import predict
from effnet.measurement.speed.pace import DISTURBED, calm_pace_ms
from effnet.measurement.speed.timing import time_model
from effnet.runtimes.untrained import write_graph

GOAL, MEMORY_GOAL, SEED, NETWORKS = 8.0, 10.0, 20_260_722, 30


def main() -> None:
    """Profile this machine, then predict and measure."""
    args = _options()
    with TemporaryDirectory() as scratch:
        profile = _profile(args, Path(scratch))
        specs = _networks(profile, args.networks)
        predicted = [predict(spec, profile, precision=args.precision) for spec in specs]
        latency: list[list[float]] = [[] for _ in specs]
        memory: list[list[float]] = [[] for _ in specs]
        calm = calm_pace_ms()
        for _ in range(args.n):
            for number, spec in enumerate(specs):
                path = write_graph(spec, Path(scratch), runtime=profile.runtime, precision=args.precision)
                calm = min(calm, calm_pace_ms(seconds=0.1))
                found = time_model(
                    path, threads=profile.threads, rounds=15, seconds=0.04, runtime=profile.runtime,
                    pace_ms=DISTURBED * calm,
                )  # fmt: skip
                latency[number].append(found.p50_ms)
                memory[number].append(found.memory_mb)
                path.unlink()
    errors = [100 * (p.latency_ms / min(laps) - 1) for p, laps in zip(predicted, latency, strict=True)]
    memory_errors = [100 * ((p.memory_mb or 0.0) / min(mb) - 1) for p, mb in zip(predicted, memory, strict=True)]
    for spec, p, laps, error in zip(specs, predicted, latency, errors, strict=True):
        print(f"{spec.name}: {p.latency_ms:.3g} ms predicted, {min(laps):.3g} ms measured, {error:+.1f} %")
    memory_error = statistics.median(map(abs, memory_errors))
    noise = 100 * statistics.median(max(laps) / min(laps) - 1 for laps in latency)
    print(f"memory: median error {memory_error:.1f} % (goal at most {MEMORY_GOAL:g} %)")
    print(f"the measurements of one network differ by {noise:.1f} % in the median")
    for doubt in profile.doubts:
        print(f"the profile is not to be trusted: {doubt}")
    details = {
        "runtime": profile.runtime, "precision": args.precision, "networks": [spec.name for spec in specs],
        "errors": errors, "memory_errors": memory_errors, "memory_error": memory_error,
        "memory_goal": MEMORY_GOAL, "measurement_noise": noise, "profile_seconds": profile.seconds,
        "profile_noise": profile.noise, "profile_errors": dict(profile.errors), "doubts": profile.doubts,
    }  # fmt: skip
    samples = {spec.name: laps for spec, laps in zip(specs, latency, strict=True)}
    figure = statistics.median(map(abs, errors))
    finish(
        "latency_table", args, figure=figure, goal=GOAL, unit="% of the latency", better="lower", samples=samples,
        details=details,
    )  # fmt: skip
    if args.check and memory_error > MEMORY_GOAL:
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/NAME.json")
    parser.add_argument("--n", type=int, default=2, help="number of measurements of each network")
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--profile", type=Path, help="existing profile of this machine")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=PLAN.seconds, help="seconds of profiling")
    return parser.parse_args()


def _profile(args: argparse.Namespace, scratch: Path) -> DeviceProfile:
    if args.profile:
        return read_profile(args.profile)
    return profile(
        scratch / "profile.json", runtime=args.runtime, threads=args.threads, precisions=(args.precision,),
        plan=replace(PLAN, seconds=args.seconds),
    )  # fmt: skip


def _networks(profile: DeviceProfile, number: int) -> list[ArchSpec]:
    """Return random networks that are not in the profile."""
    known = {row.spec for row in profile.measured}
    rng = random.Random(SEED)
    found: dict[ArchSpec, None] = {}
    while len(found) < number:
        spec = random_network(rng)
        if spec not in known:
            found.setdefault(spec)
    return list(found)


if __name__ == "__main__":
    main()
