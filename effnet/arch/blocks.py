"""The kinds of blocks: each one frozen record, from which all else that knows kinds is derived.

A new kind is one record: `register` it, and specs of it are checked, scaled, pruned, saved, built and exported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from effnet.arch.layers import Body
from effnet.errors import SpecError, nearest, shown

if TYPE_CHECKING:
    from effnet.arch.spec import BlockSpec

Middle = Literal["expansion", "own", "input", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockKind:
    """One kind of block.

    `layers` appends the layers of `body.block` to a Body, from the name of the block's input, and returns the name of
    its output. The stride must be that of the block, and the sum with the shortcut, `body.shortcut`, must follow a
    BatchNorm or its activation.

    `middle` says how `mid_channels` is chosen: "expansion", a multiple of the input's width; "own", a width of its
    own; "input" or "output", no expansion: that width itself. `unexpanded` is the kind of a block with an expansion
    ratio of 1, if that is another one. `squeezes` allows channel attention, squeeze-and-excitation or ECA,
    `projects` a projected shortcut. `depthwise` says that kernels larger than 1 x 1 are depthwise, so that their size
    costs little.
    """

    name: str
    layers: Callable[[Body, str], str]
    middle: Middle = "expansion"
    unexpanded: str = ""
    squeezes: bool = False
    projects: bool = False
    depthwise: bool = False

    def tied_channels(self, in_channels: int, out_channels: int) -> int | None:
        """Return the only possible `mid_channels` between these widths, or None if it is free."""
        return {"input": in_channels, "output": out_channels}.get(self.middle)

    def check(self, block: "BlockSpec") -> None:
        """Raise SpecError if a block has a width or a shortcut that its kind cannot have."""
        tied = self.tied_channels(block.in_channels, block.out_channels)
        if tied is not None and block.mid_channels != tied:
            raise SpecError(
                f"a {self.name} block has no expansion: mid_channels must be {tied}, got {block.mid_channels}"
            )
        if block.se_channels and not self.squeezes:
            raise SpecError(f"a {self.name} block has no squeeze-and-excitation; got se_channels={block.se_channels}")
        if block.eca_kernel and not self.squeezes:
            raise SpecError(f"a {self.name} block has no channel attention; got eca_kernel={block.eca_kernel}")
        if block.eca_kernel and block.se_channels:
            raise SpecError(
                f"a block must have squeeze-and-excitation or ECA, not both; got se_channels={block.se_channels} and "
                f"eca_kernel={block.eca_kernel}: set one to 0"
            )
        if block.residual == "projection" and not self.projects:
            able = " and ".join(kind.name for kind in _KINDS.values() if kind.projects)
            raise SpecError(f"only {able} blocks project their shortcut; got {self.name}")


def _mbconv(body: Body, x: str) -> str:
    """Sandler et al. 2018, MobileNetV2, figure 4, with the attention of MnasNet."""
    y = body.unit("expand", x, "mid")
    return _depthwise_separable(body, y, shortcut=x)


def _depthwise_separable(body: Body, x: str, *, shortcut: str = "") -> str:
    block = body.block
    y = body.unit("depthwise", x, "mid", kernel_size=block.kernel_size, stride=block.stride, depthwise=True)
    y = body.attention(y)
    y = body.unit("project", y, "out", act=False)
    return body.shortcut(y, shortcut or x)


def _fused_mbconv(body: Body, x: str) -> str:
    block = body.block
    y = body.unit("expand", x, "mid", kernel_size=block.kernel_size, stride=block.stride)
    y = body.attention(y)
    y = body.unit("project", y, "out", act=False)
    return body.shortcut(y, x)


def _conv(body: Body, x: str) -> str:
    y = body.unit("", x, "out", kernel_size=body.block.kernel_size, stride=body.block.stride)
    return body.shortcut(y, x)


def _basic(body: Body, x: str) -> str:
    """He et al. 2015, figure 5."""
    block = body.block
    y = body.unit("conv1", x, "mid", kernel_size=block.kernel_size, stride=block.stride)
    y = body.unit("conv2", y, "out", kernel_size=block.kernel_size, act=False)
    return _added(body, y, x)


def _bottleneck(body: Body, x: str) -> str:
    """He et al. 2015, figure 5, with the stride in the k x k convolution as in torchvision and timm."""
    block = body.block
    y = body.unit("conv1", x, "mid")
    y = body.unit("conv2", y, "mid", kernel_size=block.kernel_size, stride=block.stride)
    y = body.unit("conv3", y, "out", act=False)
    return _added(body, y, x)


def _added(body: Body, y: str, x: str) -> str:
    if body.block.residual == "projection":
        x = body.unit("shortcut", x, "out", stride=body.block.stride, act=False)
    return body.act(body.shortcut(y, x))


_KINDS: dict[str, BlockKind] = {
    kind.name: kind
    for kind in (
        BlockKind(
            name="mbconv", layers=_mbconv, unexpanded="depthwise_separable", squeezes=True, depthwise=True,
        ),
        BlockKind(
            name="depthwise_separable", layers=_depthwise_separable, middle="input", squeezes=True, depthwise=True,
        ),
        BlockKind(name="fused_mbconv", layers=_fused_mbconv, unexpanded="conv", squeezes=True),
        BlockKind(name="conv", layers=_conv, middle="output"),
        BlockKind(name="basic", layers=_basic, middle="own", projects=True),
        BlockKind(name="bottleneck", layers=_bottleneck, middle="own", projects=True),
    )
}  # fmt: skip


def kind_names() -> tuple[str, ...]:
    """Return the names of all block kinds."""
    return tuple(_KINDS)


def find_kind(name: str) -> BlockKind:
    """Return the record of a kind; raise SpecError if none of this name is registered."""
    try:
        return _KINDS[name]
    except (KeyError, TypeError):  # a name read from a file may be anything
        raise SpecError(
            f"block kind must be one of {', '.join(_KINDS)}; got {shown(name)}{nearest(str(name), _KINDS)}; "
            "register a kind of your own before its specs are read"
        ) from None


def register(kind: BlockKind) -> None:
    """Make a new kind known to this process; raise SpecError if its name is taken by another."""
    if _KINDS.setdefault(kind.name, kind) != kind:
        raise SpecError(f"a block kind must have a name of its own; {kind.name} is taken: choose another")
