"""serve: answer images over HTTP."""

from pathlib import Path
from typing import Annotated, Any

import typer

from effnet.cli.configs import takes_options
from effnet.cli.console import fail, print_text
from effnet.serving.settings import ServeOptions

Models = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="Bundles: FOLDER, NAME=FOLDER or NAME:VERSION=FOLDER.")
]


@takes_options(ServeOptions, models=Models)
def serve(values: dict[str, Any]) -> None:
    """Serve bundles over HTTP: images in, answers out, with readiness, metrics and limits. It ends at SIGTERM."""
    models = values.pop("models")
    settings = ServeOptions(**{name: value for name, value in values.items() if name != "procedure"})
    from effnet.serving.versions.version import read_sources

    sources = read_sources(models)
    if settings.manifests != "off":
        _write_manifests(sources, settings)
    elif settings.plan:
        _plan(sources, settings)
    else:
        from effnet.serving.run import serve as run

        run(sources, settings, say=lambda text: print_text(text, flush=True), warn=fail)


def _write_manifests(sources: Any, settings: ServeOptions) -> None:
    from effnet.serving.manifests.write import write_manifests

    out = Path(settings.out)
    files = write_manifests(settings.manifests, sources, settings, out=out)
    print_text(f"{', '.join(map(str, files))} are written, with the bundles in {out / 'models'}.")
    print_text(f"Put effnet's wheel into {out / 'wheels'}, then: docker build -t effnet-serve {out}")
    if settings.keys:
        print_text("The keys are not written: make the secret effnet-keys of them, with the entry keys.")


def _plan(sources: Any, settings: ServeOptions) -> None:
    from effnet.serving.plan.capacity import plan, text_of
    from effnet.serving.plan.measure import measured

    service = measured(sources[0], settings, image=Path(settings.plan_image) if settings.plan_image else None)
    found = plan(
        settings.plan, service, engines=settings.engines, deadline_s=settings.deadline_ms / 1e3, queue=settings.queue,
        delay_s=settings.max_delay_ms / 1e3,
    )  # fmt: skip
    print_text(text_of(found))
