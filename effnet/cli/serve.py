"""serve: answer images over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import fail, print_text
from effnet.cli.options import Use


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Bundles: FOLDER, NAME=FOLDER or NAME:VERSION=FOLDER.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: on all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.")] = 8000,
    workers: Annotated[int, typer.Option(help="Engines of one thread; 0: one per core.")] = 0,
    max_batch: Annotated[int, typer.Option(help="Most images that run together.")] = 8,
    max_delay_ms: Annotated[float, typer.Option(help="How long an idle engine waits for a batch to fill.")] = 0.0,
    deadline_ms: Annotated[
        float, typer.Option(help="Longest wait for an engine; a request that would wait longer is refused.")
    ] = 1000.0,
    queue: Annotated[int, typer.Option(help="Most requests that wait.")] = 64,
    max_body_mb: Annotated[float, typer.Option(help="Largest body of a request, in MB.")] = 10.0,
    max_pixels: Annotated[int, typer.Option(help="Largest image, width times height.")] = 25_000_000,
    body_seconds: Annotated[float, typer.Option(help="Time for the header, and for the body, of a request.")] = 10.0,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Accepted keys, one a line; without them anyone may ask.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Load a bundle again when it changes.")] = False,
    drain_seconds: Annotated[
        float, typer.Option(help="How long to serve on after SIGTERM, while the readiness is 503.")
    ] = 5.0,
    finish_seconds: Annotated[float, typer.Option(help="Most time for what has begun, after that.")] = 30.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Write no log line for each request.")] = False,
    use: Use = None,
) -> None:
    """Serve bundles over HTTP: images in, answers out, with readiness, metrics and limits. Ends at SIGTERM."""
    from effnet.serving.settings import Settings, read_keys

    settings = Settings(
        host=host, port=port, workers=workers, max_batch=max_batch, max_delay_ms=max_delay_ms, deadline_ms=deadline_ms,
        queue=queue, max_body_mb=max_body_mb, max_pixels=max_pixels, body_seconds=body_seconds,
        keys=read_keys(keys) if keys else (), watch=watch, drain_seconds=drain_seconds, finish_seconds=finish_seconds,
        format=use, log_requests=not quiet,
    )  # fmt: skip
    from effnet.serving.run import serve as run
    from effnet.serving.version import read_sources

    run(read_sources(models), settings, say=lambda text: print_text(text, flush=True), warn=fail)
