"""The layers of a decoder: a feature pyramid, the heads of a detector, the decoders of a segmenter.

Sources: google/automl efficientdet_arch.py and rwightman/efficientdet-pytorch for what the paper leaves out: the
lateral convolutions, the order within a node, BatchNorm by level in heads; segmentation_models_pytorch for the U-Net.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from effnet.arch.body import Body, GraphOutput, Layer
from effnet.errors import SpecError

if TYPE_CHECKING:
    from effnet.arch.decoders.record import Detector, Pyramid, PyramidDecoder, UNet

BOXES, SCORES, MASK = "boxes", "scores", "mask"
"""The outputs of a detector, and that of a segmenter."""


def append_decoder(body: Body) -> None:
    """Append the layers of the network's decoder, and set its outputs.

    Raises SpecError for a backbone without the levels that the decoder reads.
    """
    from effnet.arch.decoders.record import Detector, UNet

    spec = body.spec
    decoder = spec.decoder
    assert decoder is not None
    if spec.total_stride & (spec.total_stride - 1):
        raise SpecError(f"a network with a decoder must have strides that are powers of 2; got {spec.total_stride}")
    if isinstance(decoder, Detector):
        _append_detector(body, decoder)
    elif isinstance(decoder.decoder, UNet):
        _append_unet(body, decoder.decoder)
    else:
        _append_pyramid_decoder(body, decoder.decoder)


class _Draft:
    """Appends the layers of decoders to a body; names are whole, and each layer writes a named width."""

    def __init__(self, body: Body, function: str = "") -> None:
        self.body, self.function = body, function or body.spec.activation
        body.enter("")

    def layer(self, name: str, op: str, inputs: Sequence[str], width: tuple[str, int], **fields: object) -> str:
        """Append a layer and return its name."""
        layer = Layer(op, tuple(inputs), self.body.widths[inputs[0]][1], width[1], **fields)  # type: ignore[arg-type]
        return self.body.append(name, layer, width)

    def same(self, name: str, op: str, *inputs: str, **fields: object) -> str:
        """Append a layer that writes the width of its first input."""
        return self.layer(name, op, inputs, self.body.widths[inputs[0]], **fields)

    def act(self, name: str, x: str) -> str:
        """Append the activation."""
        return self.same(name, "act", x, function=self.function)

    def normed(self, prefix: str, x: str, width: tuple[str, int], *, bias: bool = False, kernel_size: int = 1) -> str:
        """Append a convolution and a BatchNorm."""
        x = self.layer(f"{prefix}.conv", "conv", (x,), width, kernel_size=kernel_size, bias=bias)
        return self.same(f"{prefix}.norm", "norm", x)

    def depthwise(self, name: str, x: str, *, weights: str = "") -> str:
        """Append a depthwise 3 x 3 convolution."""
        return self.same(name, "conv", x, kernel_size=3, groups=self.body.widths[x][1], weights=weights)

    def resized(self, name: str, x: str, level: int) -> str:
        """Append a resize to the sides of a level."""
        return self.same(name, "resize", x, function="nearest", reduction=2**level)

    def pooled(self, name: str, x: str) -> str:
        """Append a max pooling to half the sides, which pads as the network's convolutions do."""
        function = "same" if self.body.spec.padding == "same" else ""
        return self.same(name, "max_pool", x, kernel_size=3, stride=2, function=function)

    def summed(self, name: str, inputs: Sequence[str]) -> str:
        """Append the sum of feature maps, in their order."""
        x = inputs[0]
        for number, other in enumerate(inputs[1:]):
            x = self.same(f"{name}{number or ''}", "add", x, other)
        return x


def _tap(body: Body, level: int) -> str:
    """Return the last layer of the backbone at a level."""
    if level not in body.taps:
        raise SpecError(f"the backbone of this decoder must have a feature map of stride {2**level}; it has none")
    return body.taps[level]


def _pyramid_levels(draft: _Draft, neck: "Pyramid") -> dict[int, str]:
    """Return the backbone's feature maps by level, and those made of the last one for the levels above it."""
    body, width = draft.body, ("neck", neck.channels)
    last = body.spec.total_stride.bit_length() - 1
    if neck.min_level > last:
        raise SpecError(f"a pyramid must begin at a level of the backbone, at most {last}; got {neck.min_level}")
    maps = {level: _tap(body, level) for level in neck.levels if level <= last}
    for level in range(last + 1, neck.max_level + 1):
        x = maps[level - 1]
        if level == last + 1:
            x = draft.normed(f"neck.p{level}", x, width, bias=neck.redundant_bias)
        maps[level] = draft.pooled(f"neck.p{level}.pool", x)
    return maps


def _append_pyramid(draft: _Draft, neck: "Pyramid") -> dict[int, str]:
    """Append a BiFPN and return its feature maps by level.

    A node of a level joins the map of that level, from the second pass on also the first pass's node, and its
    neighbour. What comes from the backbone passes a convolution of its own at each node that reads it.
    """
    maps = _pyramid_levels(draft, neck)
    for cell in range(neck.cells):
        nodes = dict(maps)
        number = 0
        for level in reversed(neck.levels[:-1]):
            sources = [(maps[level], level), (nodes[level + 1], level + 1)]
            nodes[level] = _append_node(draft, neck, f"neck.cells.{cell}.{number}", level, sources)
            number += 1
        for level in neck.levels[1:]:
            inner = [(nodes[level], level)] if level < neck.max_level else []
            sources = [(maps[level], level), *inner, (nodes[level - 1], level - 1)]
            nodes[level] = _append_node(draft, neck, f"neck.cells.{cell}.{number}", level, sources)
            number += 1
        maps = nodes
    return maps


def _append_node(draft: _Draft, neck: "Pyramid", name: str, level: int, sources: Sequence[tuple[str, int]]) -> str:
    width, inputs = ("neck", neck.channels), []
    for number, (source, found) in enumerate(sources):
        x, prefix = source, f"{name}.in{number}"
        if draft.body.widths[x] != width:
            x = draft.normed(prefix, x, width, bias=neck.redundant_bias)
        if found > level:
            x = draft.resized(f"{prefix}.resize", x, level)
        elif found < level:
            x = draft.pooled(f"{prefix}.pool", x)
        inputs.append(x)
    x = draft.same(f"{name}.fuse", "fuse", *inputs) if neck.fusion == "fast" else draft.summed(f"{name}.sum", inputs)
    x = draft.depthwise(f"{name}.depthwise", draft.act(f"{name}.act", x))
    x = draft.same(f"{name}.pointwise", "conv", x, bias=neck.redundant_bias)
    return draft.same(f"{name}.norm", "norm", x)


def _append_detector(body: Body, detector: "Detector") -> None:
    draft, head = _Draft(body), detector.head
    maps = _append_pyramid(draft, detector.neck)
    outputs = []
    for name, columns in ((BOXES, 4), (SCORES, body.spec.num_classes)):
        lasts = []
        for level, x in maps.items():
            for number in range(head.repeats):
                shared = f"head.{name}.{number}"
                x = draft.depthwise(f"{shared}.depthwise.p{level}", x, weights=f"{shared}.depthwise")
                x = draft.same(
                    f"{shared}.pointwise.p{level}", "conv", x, bias=detector.neck.redundant_bias,
                    weights=f"{shared}.pointwise",
                )  # fmt: skip
                x = draft.act(f"{shared}.act.p{level}", draft.same(f"{shared}.norm.p{level}", "norm", x))
            shared = f"head.{name}.last"
            x = draft.depthwise(f"{shared}.depthwise.p{level}", x, weights=f"{shared}.depthwise")
            width = (name, columns * head.priors)
            pointwise = f"{shared}.pointwise"
            lasts.append(
                draft.layer(f"{pointwise}.p{level}", "conv", (x,), width, bias=True, weights=pointwise)
            )  # fmt: skip
        outputs.append(GraphOutput(name, tuple(lasts), columns, "rows"))
    body.outputs = tuple(outputs)


def _append_pyramid_decoder(body: Body, decoder: "PyramidDecoder") -> None:
    draft, width = _Draft(body), ("neck", decoder.neck.channels)
    maps = _append_pyramid(draft, decoder.neck)
    inputs = []
    if decoder.to_level < decoder.neck.min_level:
        inputs.append(draft.normed("decoder.lateral", _tap(body, decoder.to_level), width))
    for level, x in maps.items():
        inputs.append(x if level == decoder.to_level else draft.resized(f"decoder.p{level}", x, decoder.to_level))
    x = draft.depthwise("decoder.depthwise", draft.act("decoder.act", draft.summed("decoder.sum", inputs)))
    x = draft.layer("decoder.pointwise", "conv", (x,), ("decoder", decoder.channels))
    x = draft.act("decoder.last_act", draft.same("decoder.norm", "norm", x))
    _append_mask(draft, x, 1)


def _append_unet(body: Body, decoder: "UNet") -> None:
    draft = _Draft(body, decoder.activation)
    level = body.spec.total_stride.bit_length() - 1
    if len(decoder.channels) > level:
        raise SpecError(f"a U-Net on this backbone must have at most {level} blocks; got {len(decoder.channels)}")
    for early, block in decoder.early:
        if block >= len(body.ends) or body.ends[block][0] != early:
            raise SpecError(f"block {block} of the backbone must have a feature map of stride {2**early}; it has not")
        body.taps[early] = body.ends[block][1]
    x = _tap(body, level)
    for number, channels in enumerate(decoder.channels):
        level -= 1
        prefix, width = f"decoder.{number}", (f"decoder.{number}", channels)
        x = draft.resized(f"{prefix}.resize", x, level)
        if level:
            skip = body.taps[0] if level == 1 and decoder.skips_stem else _tap(body, level)
            names, counts = zip(*(body.widths[part] for part in (x, skip)), strict=True)
            # Pruning knows a concatenation by the widths that it joins.
            x = draft.layer(f"{prefix}.concat", "concat", (x, skip), ("+".join(names), sum(counts)))
        for part in ("first", "second"):
            unit = f"{prefix}.{part}"
            if decoder.separable:
                x = draft.layer(f"{unit}.pointwise", "conv", (x,), width)
                x = draft.depthwise(f"{unit}.depthwise", x)
                x = draft.same(f"{unit}.norm", "norm", x)
            else:
                x = draft.normed(unit, x, width, kernel_size=3)
            x = draft.act(f"{unit}.act", x)
    _append_mask(draft, x, decoder.last_kernel)


def _append_mask(draft: _Draft, x: str, kernel_size: int) -> None:
    classes = draft.body.spec.num_classes
    last = draft.layer("decoder.last", "conv", (x,), (MASK, classes), kernel_size=kernel_size, bias=True)
    draft.body.outputs = (GraphOutput(MASK, (last,), classes, "map"),)
