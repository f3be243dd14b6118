"""Specs as JSON and as the TensorFlow block strings of the original code."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from effnet.arch.blocks import find_kind
from effnet.arch.cost import cost
from effnet.arch.decoders.record import Detector, Segmenter
from effnet.arch.lineage import Lineage
from effnet.arch.spec import MAX_BLOCKS, ArchSpec, BlockSpec, Scaling, StemSpec, stage
from effnet.errors import SpecError, nearest, shown
from effnet.system.records import from_data, to_data

FORMAT = 1
MAX_PARAMS = 2 * 10**9
"""Four times as many as EfficientNet-L2; more would not fit into the memory of most machines."""


def spec_to_dict(spec: ArchSpec) -> dict[str, Any]:
    """Return `spec` as JSON-serializable data that `spec_from_dict` reads back to an equal value."""
    fields = dataclasses.asdict(spec)
    del fields["lineage"]
    fields |= {"decoder": to_data(spec.decoder)}
    for name in ("height", "decoder", "pooled"):  # files of networks without them stay as they were
        if not fields[name]:
            del fields[name]
    for block in (block for row in fields["stages"] for block in row):
        for name in ("activation", "eca_kernel"):
            if not block[name]:
                del block[name]
    return {"format": FORMAT, "name": spec.name, **fields, "lineage": to_data(spec.lineage)}


def spec_from_dict(data: Mapping[str, Any]) -> ArchSpec:
    """Return the spec that `spec_to_dict` wrote.

    Raises SpecError for another format version, unknown or missing fields, and values out of range.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"an architecture must be a JSON object; got {type(data).__name__}")
    fields = dict(data)
    version = fields.pop("format", None)
    if type(version) is not int or version != FORMAT:
        raise SpecError(f"this effnet reads architecture format {FORMAT}; got {shown(version)}: upgrade effnet")
    fields["lineage"] = _read_lineage(fields.pop("name", None), fields.pop("lineage", None))
    for name, kind in (("stem", StemSpec), ("scaling", Scaling)):
        if name in fields:
            fields[name] = _make(kind, fields[name], name)
    if fields.get("decoder") is not None:
        try:
            fields["decoder"] = from_data(Detector | Segmenter, fields["decoder"], where="decoder")
        except ValueError as error:
            raise SpecError(f"architecture: {error}") from error
    if isinstance(fields.get("pooled"), list):
        fields["pooled"] = tuple(fields["pooled"])
    stages = fields.get("stages")
    if not isinstance(stages, list | tuple) or not all(isinstance(row, list | tuple) for row in stages):
        raise SpecError("stages must be a list of lists of blocks")
    if sum(map(len, stages)) > MAX_BLOCKS:  # before any block is built
        raise SpecError(f"a network must have at most {MAX_BLOCKS:,} blocks; got {sum(map(len, stages)):,}")
    fields["stages"] = tuple(
        tuple(_make(BlockSpec, block, f"stages[{i}][{j}]") for j, block in enumerate(row))
        for i, row in enumerate(stages)
    )
    spec: ArchSpec = _make(ArchSpec, fields, "architecture")
    if (params := cost(spec).params) > MAX_PARAMS:
        raise SpecError(f"a network must have at most {MAX_PARAMS:,} parameters; this one has {params:,}")
    return spec


def _read_lineage(name: Any, data: Any) -> Lineage:
    """Return the lineage in a file; a network whose name was changed there has that name and no other origin."""
    try:
        found = Lineage() if data is None else from_data(Lineage, data, where="lineage")
        return found if name in (None, found.name) else Lineage(base=name)
    except (ValueError, SpecError) as error:
        raise SpecError(f"architecture: {error}") from error


def _make(kind: type, fields: Any, where: str) -> Any:
    if not isinstance(fields, Mapping):
        raise SpecError(f"{where} must be a JSON object; got {shown(fields)}")
    known = {field.name for field in dataclasses.fields(kind)}
    for name in fields:
        if name not in known:
            raise SpecError(f"{where} has no field {shown(name)}{nearest(str(name), known)}")
    try:
        return kind(**fields)
    except TypeError as error:
        required = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
        missing = sorted(required - set(fields))
        raise SpecError(f"{where} lacks {', '.join(missing)}" if missing else f"{where}: {error}") from error
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


# The kinds of TensorFlow's block strings, by the option c; with an expansion ratio of 1 they are `unexpanded`.
_TF_KINDS = ("mbconv", "fused_mbconv")
_OPTION = re.compile(r"(se|[rkseiocpfd])([\d.]+)")


def stage_from_string(text: str, *, in_channels: int | None = None) -> tuple[BlockSpec, ...]:
    """Return the blocks of one TF block string, such as r2_k5_s2_e6_i24_o40_se0.25.

    `in_channels` is the number of channels that the stage really receives, if it differs from the string's i
    (EdgeTPU's first stage expands from 24 but receives 32). Raises SpecError for options outside the format.
    Source: BlockDecoder in tensorflow/tpu efficientnet_builder.py.
    """
    options: dict[str, str] = {}
    for part in text.strip().split("_"):
        found = _OPTION.fullmatch(part)
        if part == "noskip":
            options["noskip"] = ""
        elif found and found[1] not in options and found[1] not in ("p", "f", "d"):
            options[found[1]] = found[2]
        else:
            raise SpecError(f"block string {shown(text)} has an unknown option: {part!r}")
    missing = [key for key in "rkseio" if key not in options]
    if missing:
        raise SpecError(f"block string {shown(text)} lacks {', '.join(missing)}")
    try:
        return _stage_from_options(options, in_channels)
    except (ValueError, OverflowError) as error:
        raise SpecError(f"block string {shown(text)} has an invalid value: {error}") from error


def _stage_from_options(options: Mapping[str, str], in_channels: int | None) -> tuple[BlockSpec, ...]:
    if options.get("c", "0") not in ("0", "1"):
        raise ValueError(f"c must be 0 (mbconv) or 1 (fused); got {options['c']}")
    stride = options["s"]  # TF writes a stride as two digits, s22
    if stride not in (stride[0], stride[0] * 2):
        raise ValueError(f"s must be one digit or the same one twice; got {stride}")
    named_input = int(options["i"])
    expand = float(options["e"])
    return stage(
        _TF_KINDS[int(options.get("c", "0"))],
        repeats=int(options["r"]),
        kernel_size=int(options["k"]),
        stride=int(stride[0]),
        expand_ratio=int(expand) if expand.is_integer() else expand,
        in_channels=in_channels or named_input,
        out_channels=int(options["o"]),
        se_ratio=float(options.get("se", "0")),
        skip="noskip" not in options,
        expands_from=named_input if in_channels not in (None, named_input) else 0,
    )


def stage_to_string(blocks: Sequence[BlockSpec], *, expands_from: int = 0) -> str:
    """Return the TF block string of one stage.

    Raises SpecError for a stage that the format cannot express (ResNet blocks, pruned or uneven widths).
    """
    if not blocks:
        raise SpecError("a stage needs at least one block")
    first = blocks[0]
    base = expands_from or first.in_channels
    codes = [c for c, name in enumerate(_TF_KINDS) if first.kind in (name, find_kind(name).unexpanded)]
    tied = first.rules.tied_channels(first.in_channels, first.out_channels) is not None
    expand = 1.0 if tied else first.mid_channels / base
    se_ratio = first.se_channels / first.in_channels
    could_skip = [b for b in blocks if b.stride == 1 and b.in_channels == b.out_channels]
    skip = all(b.residual == "identity" for b in could_skip) and not (expands_from and not could_skip)
    parts = [f"r{len(blocks)}", f"k{first.kernel_size}", f"s{first.stride}{first.stride}", f"e{expand:g}"]
    parts += [f"i{base}", f"o{first.out_channels}"]
    parts += [f"se{se_ratio:g}"] if first.se_channels else []
    parts += ["c1"] if codes == [1] else []
    parts += [] if skip else ["noskip"]
    text = "_".join(parts)
    if not codes or stage_from_string(text, in_channels=first.in_channels) != tuple(blocks):
        raise SpecError("this stage has no TF block string: its blocks differ in more than the first one's stride")
    return text
