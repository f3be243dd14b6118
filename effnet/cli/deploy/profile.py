"""profile: measure this device, without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.console import counter, print_table, print_text
from effnet.cli.options import Profiled
from effnet.runtimes.registry import DEFAULT

if TYPE_CHECKING:
    from effnet.measurement.profile.profile import DeviceProfile


def profile(
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="The profile to write.")] = Path("device.json"),
    runtime: Annotated[Profiled, typer.Option(help="The runtime to measure.")] = Profiled[DEFAULT],
    threads: Annotated[int, typer.Option(help="Threads of the runtime; 0: one per core.")] = 1,
    precision: Annotated[
        str, typer.Option(help="fp32, int8 or both, comma-separated; default: all that the runtime supports.")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted profile.")] = False,
    show: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Print an existing profile; measure nothing.")
    ] = None,
) -> None:
    """Measure this device, so that fit can plan for it on another machine."""
    from effnet.measurement.profile.profile import read_profile

    if show is not None:
        _print_profile(read_profile(show))
        return
    from effnet import profile as profile_device

    wanted = [word.strip() for word in precision.split(",") if word.strip()] or None
    with counter("seconds, at most") as progress:
        found = profile_device(
            out,
            runtime=runtime.value,
            threads=threads,
            precisions=wanted,  # type: ignore[arg-type]
            resume=resume,
            progress=progress,
        )
    _print_profile(found)
    print_text(f"Profile: {out}")


def _print_profile(found: "DeviceProfile") -> None:
    package = found.package
    clock, version = found.clock, found.versions.get(package)
    cpu, cores, memory, system = (found.machine.get(name) for name in ("cpu", "cores", "memory_gb", "system"))
    print_text(f"{cpu}, {cores} cores, {memory} GB, {system}")
    print_text(f"{package} {version}, threads: {found.threads}, {found.created}, {found.seconds:g} s")
    if clock.start_mhz is not None and clock.end_mhz is not None:
        print_text(f"clock: {clock.start_mhz:.0f} MHz at the start, {clock.end_mhz:.0f} MHz at the end")
    if clock.reference_ms:
        print_text(
            f"reference network: {min(clock.reference_ms):.3g} ms at its fastest, {max(clock.reference_ms):.3g} ms at "
            f"its slowest, {clock.drift:+.1%} from start to end"
        )
    rows = []
    for precision in found.precisions:
        some = [row for row in found.measured if row.precision == precision]
        latencies = sorted(row.latency_ms for row in some)
        rows.append(
            (
                precision,
                len(some),
                f"{latencies[0]:.3g} to {latencies[-1]:.3g}",
                f"{sorted(row.spread for row in some)[len(some) // 2]:.1%}",
                _percent(found.errors.get(f"{precision} latency")),
                _percent(found.errors.get(f"{precision} memory")),
            )
        )
    columns = ("precision", "networks", "ms", "noise", "latency error", "memory error")
    print_table(columns, rows, left=("precision",))
    for doubt in found.doubts:
        print_text(f"Not to be trusted: {doubt}.")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
