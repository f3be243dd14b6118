"""models scale: a network of another size, without torch."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import amount, print_table, print_text
from effnet.cli.options import Resolution, Subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet.arch.spec import ArchSpec
    from effnet.nas.algorithms.grid import GridPoint


def scale(
    subject: Subject,
    phi: Annotated[float | None, typer.Option(help="Compound coefficient; negative for smaller networks.")] = None,
    max_macs: Annotated[
        str | None, typer.Option(help="Solve for the largest phi within this limit, such as 300M.")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(help="Solve for the largest phi within this limit, such as 5M.")
    ] = None,
    width: Annotated[float | None, typer.Option(help="Factor on channels, instead of phi's.")] = None,
    depth: Annotated[float | None, typer.Option(help="Factor on repeats, instead of phi's.")] = None,
    resolution: Resolution = None,
    powers: Annotated[
        str, typer.Option(metavar="A,B,G", help="Depth grows by A^phi, width by B^phi, resolution by G^phi.")
    ] = "1.2,1.1,1.15",
    grid: Annotated[
        bool, typer.Option("--grid", help="List networks of twice the MACs: the grid that finds A, B and G.")
    ] = False,
    literal: Annotated[
        bool, typer.Option("--literal", help="With --grid: only coefficients that are multiples of 0.05.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="With --grid: train its networks on these images.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="With --data: minutes of training; default: 60.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json|DIR", help="Write the network as JSON; with --data, the folder.")
    ] = None,
) -> None:
    """Scale a network by compound scaling, by given factors, or to a budget; or list the grid of its coefficients."""
    from effnet.arch.codec import spec_to_dict
    from effnet.arch.scale import scale as scale_spec
    from effnet.arch.scale import solve_phi
    from effnet.bundle.config import write_text
    from effnet.bundle.spec_of import read_spec
    from effnet.errors import InputError
    from effnet.measurement.budget import parse_amount

    base = read_spec(subject)
    if grid or literal or data is not None or minutes is not None:
        given: tuple[Any, ...] = (phi, max_macs, max_params, width, depth, resolution, None if data else out)
        if not grid or any(value is not None for value in given):
            raise InputError("--literal, --data and --minutes belong to --grid, which goes with nothing else")
        _grid(base, data, minutes, out, literal=literal)
        return
    bases: dict[str, Any] = _read_powers(powers)
    if max_macs is not None or max_params is not None:
        if phi is not None or width is not None or depth is not None:
            raise InputError("--max-macs and --max-params solve for phi: leave out --phi, --width and --depth")
        limits: dict[str, Any] = {
            "max_macs": parse_amount(max_macs) if max_macs else None,
            "max_params": parse_amount(max_params) if max_params else None,
        }
        phi = solve_phi(base, **limits, **bases, resolution=resolution)
    spec = scale_spec(base, phi=phi, **bases, width=width, depth=depth, resolution=resolution)
    if out is not None:
        write_text(out, json.dumps(spec_to_dict(spec), indent=1) + "\n")
    _print_scaled(base, spec)


def _read_powers(text: str) -> dict[str, float]:
    """Parse --powers; scaling itself refuses numbers that it cannot use."""
    from effnet.errors import InputError
    from effnet.system.text import brief

    try:
        alpha, beta, gamma = (float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--powers must be three numbers, such as 1.2,1.1,1.15; got {brief(text)}") from None
    return {"alpha": alpha, "beta": beta, "gamma": gamma}


def _grid(base: "ArchSpec", data: str | None, minutes: float | None, out: Path | None, *, literal: bool) -> None:
    """Print the grid, trained on the data if there are any."""
    from effnet.errors import InputError
    from effnet.system.bounds import check_minutes

    if minutes is not None:
        check_minutes(minutes)
        if data is None:
            raise InputError("--minutes are those of training a grid on images; add --data")
    if data is None:
        _print_grid(base, literal=literal)
    else:
        _train_grid(base, data, 60.0 if minutes is None else minutes, out, literal=literal)


def _train_grid(base: "ArchSpec", data: str, minutes: float, out: Path | None, *, literal: bool) -> None:
    """Train the grid, or resume its training in the folder, and print it with the accuracies and the answer."""
    from effnet.bundle.names import RUN, SEARCH
    from effnet.cli.console import TerminalListener
    from effnet.jobs.search.grid import in_words, search_grid

    folder = out or Path("grid")
    with TerminalListener() as listener:
        begun = (folder / RUN / SEARCH).is_file()
        found = search_grid(base, data, minutes=minutes, out=folder, resume=begun, literal=literal, listener=listener)
    _print_points(found.base, found.points, [in_words(found.scores.get(i, ())) for i in range(len(found.points))])
    print_text(found.sentence)
    print_text(f"Use it with --powers {found.answer.alpha:.3g},{found.answer.beta:.3g},{found.answer.gamma:.3g}")


def _print_grid(base: "ArchSpec", *, literal: bool) -> None:
    from effnet.nas.algorithms.grid import equal_cost_grid, literal_grid

    points = literal_grid(base) if literal else equal_cost_grid(base)
    _print_points(base, points, [""] * len(points))


def _print_points(base: "ArchSpec", points: "Sequence[GridPoint]", accuracies: "Sequence[str]") -> None:
    from effnet.arch.cost import cost as cost_of
    from effnet.arch.scale import ALPHA, BETA, GAMMA
    from effnet.nas.algorithms.grid import FACTOR, TOLERANCE, scaled_point

    before, nominal = cost_of(base), scaled_point(base, alpha=ALPHA, beta=BETA, gamma=GAMMA)
    print_text(f"{base.name}: {amount(before.macs)} MACs. Networks with {FACTOR:g} times that, within {TOLERANCE:.0%}:")
    rows = [
        (
            f"{p.alpha:.4g}", f"{p.beta:.4g}", f"{p.gamma:.4g}", f"{p.product:.2f}", f"{p.ratio:.3f}",
            p.spec.resolution, len(p.spec.blocks), amount(cost_of(p.spec).params), accuracy,
            f"published, phi {math.log(p.alpha) / math.log(ALPHA):.3g}" if p.published else "",
        )
        for p, accuracy in zip(points, accuracies, strict=True)
    ]  # fmt: skip
    print_table(
        ("alpha", "beta", "gamma", "product", "MACs ratio", "resolution", "blocks", "params", "accuracy", ""),
        rows,
        left=("accuracy", ""),
    )
    print_text(
        f"At phi 1 the published {ALPHA}, {BETA}, {GAMMA} have a product of {nominal.product:.2f} "
        f"but {nominal.ratio:.3f} times the MACs, since repeats are rounded up and widths to multiples of 8."
    )


def _print_scaled(base: "ArchSpec", spec: "ArchSpec") -> None:
    from effnet.arch.cost import cost as cost_of
    from effnet.arch.describe import stage_rows

    before, after = cost_of(base), cost_of(spec)
    print_text(f"{spec.name}: {amount(after.params)} params, {amount(after.macs)} MACs at {spec.resolution} pixels")
    print_text(f"({base.name}: {amount(before.params)} params, {amount(before.macs)} MACs at {base.resolution} pixels)")
    rows = [(r.operator, r.resolution, r.stride, r.channels, r.layers) for r in stage_rows(spec)]
    print_table(("operator", "resolution", "stride", "channels", "layers"), rows, left=("operator",))
