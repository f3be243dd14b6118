"""bench: latency, throughput and memory of a bundle's exports on this machine."""

import dataclasses
from typing import Annotated, Any

import typer

from effnet.cli.console import counter, fail, print_json, print_table, print_text
from effnet.cli.deploy.export import words
from effnet.cli.options import Bundle, Format, Output
from effnet.errors import InputError
from effnet.system.text import brief, percent


def bench(
    context: typer.Context,
    bundle: Bundle,
    runtimes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Compare the exports of these runtimes, comma-separated, or `all`."),
    ] = None,
    threads: Annotated[str, typer.Option(help="Numbers of threads, comma-separated.")] = "1",
    batch: Annotated[
        str | None,
        typer.Option(help="Batch sizes, comma-separated; default: 1,8,32, or 1 if runtimes are compared."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Labelled images to score the compared exports on.")] = None,
    output: Format = Output.table,
) -> None:
    """Measure latency, throughput and memory of a bundle's exports on this machine."""
    from effnet.measurement.speed.stopwatch import Stopwatch

    thread_numbers = _numbers(threads, "--threads")
    stopwatch = context.obj.stopwatch if context.obj else Stopwatch()
    if runtimes is None:
        if data is not None:
            raise InputError("--data needs --runtimes, as it scores the exports that are compared; add --runtimes all")
        _one(bundle, thread_numbers, _numbers("1,8,32" if batch is None else batch, "--batch"), output, stopwatch)
        return
    from effnet import bench as bench_bundle

    with counter("measuring") as progress:
        found = bench_bundle(
            bundle,
            runtimes=words(runtimes),
            threads=thread_numbers,
            batches=_numbers("1" if batch is None else batch, "--batch"),
            data=data,
            progress=progress,
            stopwatch=stopwatch,
        )
    if output is Output.json:
        _print_json(found)
    else:
        _print_bench(found, bundle)
    for name, reason in found.failed.items():
        fail(f"{name}: {reason}")
    if found.failed:
        raise typer.Exit(2)


def _one(bundle: Any, threads: list[int], batches: list[int], output: Output, stopwatch: Any) -> None:
    """Measure the deployed export at every setting."""
    from effnet.bundle.config import read_config
    from effnet.runtimes.digests import check_digests
    from effnet.runtimes.registry import deployed_format
    from effnet.system.machine import machine, versions

    config = read_config(bundle)
    target = deployed_format(config)
    check_digests(bundle, target.name)
    settings = [(t, b) for t in threads for b in batches]
    rows = []
    with counter("measuring") as progress:
        for number, (t, b) in enumerate(settings):
            if progress:
                progress(number, len(settings))
            rows.append(stopwatch.once(bundle / target.file, threads=t, batch=b, rounds=5))
    if output is Output.json:
        data = [dataclasses.asdict(row) | {"images_per_second": row.images_per_second} for row in rows]
        about = {"network": config.arch.name, "format": target.name, "machine": machine(), "versions": versions()}
        print_json(about | {"rows": data})
        return
    print_text(f"{config.arch.title}, {rows[0].size_mb:.2f} MB, on {machine()['cpu']}, {_runtime(target.runtime)}")
    columns = ("threads", "batch", "p50 ms", "p95 ms", "images/s", "load ms", "memory MB")
    print_table(columns, [(r.threads, r.batch, *_speeds(r), f"{r.load_ms:.0f}", f"{r.memory_mb:.1f}") for r in rows])
    _print_busy(rows)


def _print_busy(timings: list[Any]) -> None:
    """Print the numbers of threads whose measurements background load disturbed."""
    from effnet.measurement.speed.timing import busy_sentence

    for threads in dict.fromkeys(timing.threads for timing in timings if timing.busy):
        some = [timing for timing in timings if timing.threads == threads and timing.busy]
        uncertain = any(timing.uncertain for timing in some)
        print_text(busy_sentence(max(t.waited for t in some), threads=threads, uncertain=uncertain) + ".")


def _speeds(timing: Any) -> tuple[str, str, str]:
    return f"{timing.p50_ms:.3g}", f"{timing.p95_ms:.3g}", f"{timing.images_per_second:.0f}"


def _runtime(runtime: Any) -> str:
    """Return a runtime's name with its version."""
    from effnet.runtimes.installed import runtime_version
    from effnet.runtimes.registry import RUNTIMES

    return f"{RUNTIMES[runtime].title} {runtime_version(runtime)}"


def _print_json(found: Any) -> None:
    from effnet.runtimes.installed import versions_for
    from effnet.system.machine import machine, versions

    rows = [
        {
            "format": row.format.name,
            "runtime": row.format.runtime,
            "precision": row.format.precision,
            **dataclasses.asdict(row.timing),
            "images_per_second": row.timing.images_per_second,
            "size_mb": row.size_mb,
            **{key: value for key, value in dataclasses.asdict(row.quality).items() if key != "images"},
            "scored": row.quality.images,
        }
        for row in found.rows
    ]
    known = versions()
    for runtime in {row.format.runtime for row in found.rows}:
        known |= versions_for(runtime)
    about = {"network": found.config.arch.name, "machine": machine(), "versions": known, "rows": rows}
    more = {
        "absent": list(found.absent),
        "uninstalled": found.uninstalled,
        "failed": found.failed,
        "scored_on": found.scored,
    }
    if (task := found.config.task_record).whole is not None:
        more |= {"figure": task.figure.title, "outside_ms": found.outside_ms}
    print_json(about | more)


def _print_bench(found: Any, bundle: Any) -> None:
    from effnet.system.machine import machine

    several = len({row.timing.batch for row in found.rows}) > 1
    columns = ["runtime", "precision", "threads", *["batch"] * several, "MB", "load ms", "p50 ms", "p95 ms", "images/s"]
    task = found.config.task_record
    columns += ["memory MB", "accuracy" if task.whole is None else task.figure.title, "agreement", "drop (pp)"]
    rows = []
    for row in found.rows:
        timing, quality = row.timing, row.quality
        shares = ("-" if share is None else percent(share) for share in (quality.accuracy, quality.agreement))
        setting = (timing.threads, *[timing.batch] * several, f"{row.size_mb:.2f}", f"{timing.load_ms:.0f}")
        speeds = (*_speeds(timing), f"{timing.memory_mb:.1f}")
        lost = "-" if quality.drop is None else f"{100 * quality.drop:+.2f}"
        rows.append((row.format.runtime, row.format.precision, *setting, *speeds, *shares, lost))
    if found.scored:
        print_text(found.scored)
    print_text(f"{found.config.arch.title} on {machine()['cpu']}")
    print_table(columns, rows, left=("runtime", "precision"))
    if found.outside_ms is not None:
        print_text(f"For an image, beside these latencies, what follows the network takes {found.outside_ms:.3g} ms.")
    _print_busy([row.timing for row in found.rows])
    if found.absent:
        data = " --data DATA" if any(name.endswith("int8") for name in found.absent) else ""
        print_text(f"Not exported yet: effnet export {bundle} --to {','.join(found.absent)}{data}")
    for runtime, reason in found.uninstalled.items():
        print_text(f"Not installed: {runtime}: {reason}")


def _numbers(text: str, option: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > 4096:
        raise InputError(
            f"{option} must be comma-separated whole numbers from 1 to 4096, such as 1,2; got {brief(text)}"
        )
    return found
