"""Write the generated parts of README.md and of the pages in docs/: `python -m benchmarks.readme`.

With --check it changes nothing and exits with 1 if one of them is out of date.
"""

import argparse
import dataclasses
import json
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.harness import RECORDS, ROOT
from benchmarks.record import rounded
from benchmarks.sentences import says, unit_of
from effnet.arch.catalog import DETECTORS, FAMILIES, get_spec, published, published_ap
from effnet.arch.cost import cost

# The rows of the README: the record, what is compared, and the named baseline.
_RESULTS = {
    "transfer": ("`effnet fit` of 600 photographs, whole process", "a plain timm script of 5 epochs"),
    "deploy_speed": ("the file that `fit` deploys, one photograph", "timm, torch.onnx, ONNX Runtime"),
    "time_to_accuracy": ("B0 from scratch on CIFAR-10, whole process", "timm's guide's settings"),
    "train_speed": ("training steps of B0 on a CPU", "timm's default loop"),
    "train_memory": ("peak memory of training B0", "timm"),
    "search_table": ("a network found by 50 trainings, NAS-Bench-Macro, 40 M MACs", "random search at equal cost"),
    "input_speed": ("JPEG files to training batches, per core", "timm's loader in its fastest setting"),
}


def networks_table() -> str:
    """Return the table of every named network in Markdown."""
    lines = ["| name | parameters | GMACs | resolution | published top-1 | source |", "|---|--:|--:|--:|--:|---|"]
    for names in FAMILIES.values():
        for name in names:
            spec, found = get_spec(name), published(name)
            total = cost(spec)
            top1, source = (f"{found.top1:g} %", found.source) if found else ("", "")
            gmacs = f"{total.macs / 1e9:.3f}"
            lines.append(f"| `{name}` | {total.params:,} | {gmacs} | {spec.resolution} | {top1} | {source} |")
    return "\n".join(lines)


def detectors_table() -> str:
    """Return the table of every named detector in Markdown."""
    lines = [
        "| name | parameters | GMACs | resolution | AP | AP, test-dev | AP50, test-dev |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in DETECTORS:
        spec, found = get_spec(name), published_ap(name)
        total = cost(spec)
        aps = (found.val, found.test, found.test_50) if found else ()
        cells = " | ".join("" if ap is None else f"{ap:g} %" for ap in aps)
        lines.append(f"| `{name}` | {total.params:,} | {total.macs / 1e9:.3f} | {spec.resolution} | {cells} |")
    return "\n".join(lines)


def figures_table() -> str:
    """Return the measurements, one row per record, in Markdown."""
    lines = ["| what | measured | goal | how to repeat |", "|---|--:|--:|---|"]
    for path in sorted(RECORDS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        missed = "".join(f"; missed: {words}" for words in record.get("missed", ()))
        runs = [*record.get("details", {}).get("earlier", ()), record]
        commands = "; ".join(f"`{run['command']}`" for run in runs)
        lines.append(f"| {says(record)}{missed} | {_value(record)} | {_goal(record)} | {commands} |")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDS.glob("*.json"))]
    cores = {(r["machine"]["cpu"], r["machine"]["cores"]) for r in records}
    machines = [f"{cpu}, {count} core{'s' * (count > 1)}" for cpu, count in sorted(cores)]
    return "\n".join([*lines, "", f"Measured on {'; '.join(machines)}. Every sample is in `benchmarks/records/`."])


def _value(record: dict[str, Any]) -> str:
    return (
        f"{record['figure']:.2%}"
        if record["name"].startswith("main_job_")
        else f"{rounded(record['figure'], digits=2)} {unit_of(record)}"
    )


def _goal(record: dict[str, Any]) -> str:
    if record["name"].startswith("main_job_"):
        return f"{record['goal']:.1%}"
    return f"{record['goal']:g} {unit_of(record)}"


def results_table() -> str:
    """Return the measurements against named baselines, for the README."""
    lines = ["| what | baseline | measured |", "|---|---|--:|"]
    for name, (what, baseline) in _RESULTS.items():
        record = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
        lines.append(f"| {what} | {baseline} | **{_value(record)}** |")
    return "\n".join(lines)


def command_pages() -> str:
    """Return the help of every verb, included from the golden files that the tests compare with the program."""
    names = [path.stem for path in sorted((ROOT / "tests" / "golden" / "cli").glob("*.txt"))]
    groups = ("models", "data", "runs")
    order = sorted(names, key=lambda n: (n != "effnet", n.partition("-")[0] in groups, n))
    parts = []
    for name in order:
        title = "effnet" if name == "effnet" else f"effnet {name.replace('-', ' ')}"
        parts.append(f'## {title}\n\n```text\n--8<-- "tests/golden/cli/{name}.txt"\n```\n')
    return "\n".join(parts)


def api_page() -> str:
    """Return the public names of effnet with the places of their docstrings, for mkdocstrings."""
    import effnet

    parts = []
    for name in effnet.__all__:
        module, attribute = effnet._LAZY[name]
        parts.append(f"## {name}\n\n::: {module}.{attribute}\n")
    return "\n".join(parts)


def fields_table() -> str:
    """Return the fields of a recipe with their types and defaults."""
    from effnet.training.recipe.schema import Recipe, Stage

    lines = ["| field | type | default |", "|---|---|---|"]
    for name, kind, default in (*_fields(Recipe, ""), *_fields(Stage, "stages[].")):
        lines.append(f"| `{name}` | {kind} | {default} |")
    return "\n".join(lines)


def _fields(kind: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _fields(hint, f"{prefix}{field.name}.")  # type: ignore[arg-type]
            continue
        given = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = "required" if given is dataclasses.MISSING else f"`{json.dumps(given, default=list)}`"
        yield f"{prefix}{field.name}", _type_text(hint), default


def _type_text(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return text.replace("typing.", "").replace("effnet.training.recipe.schema.", "").replace("|", "or")


# The generated parts of each file.
PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"results": results_table},
    "docs/models.md": {"networks": networks_table, "detectors": detectors_table},
    "docs/benchmarks.md": {"figures": figures_table},
    "docs/reference/cli.md": {"cli": command_pages},
    "docs/reference/python.md": {"api": api_page},
    "docs/reference/recipe.md": {"fields": fields_table},
}


def generate(name: str, text: str) -> str:
    """Return the text of the file `name` with the parts between its marks regenerated."""
    for part, content in PARTS[name].items():
        begin, end = f"<!-- {part}: generated by python -m benchmarks.readme -->", f"<!-- end of {part} -->"
        head, _, rest = text.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise SystemExit(f"{name} must hold {begin} and {end}")
        text = f"{head}{begin}\n{content()}\n{end}{tail}"
    return text


def main() -> None:
    """Regenerate the parts, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    for name in PARTS:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = generate(name, old)
        if args.check and new != old:
            print(f"{name} is out of date: run python -m benchmarks.readme")
            sys.exit(1)
        if not args.check:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
