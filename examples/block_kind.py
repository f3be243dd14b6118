"""A block of your own: two depthwise branches, 3 x 3 and 5 x 5, added; scaled, pruned, built and exported.

python examples/block_kind.py
"""

import numpy as np

from effnet import ArchSpec, Lineage, build, cost, scale, stage
from effnet.arch.blocks import BlockKind, register
from effnet.arch.layers import Body
from effnet.arch.spec import StemSpec
from effnet.bundle.weights import state_arrays
from effnet.compression.importance import weight_importance
from effnet.compression.prune import prune
from effnet.runtimes.onnxruntime.graph import to_onnx
from effnet.runtimes.onnxruntime.session import IMAGE, open_bytes
from effnet.weights.folding import fold_norms
from effnet.weights.morph import transfer


def two_scales(body: Body, x: str) -> str:
    stride, k = body.block.stride, body.block.kernel_size
    x_mid = body.unit("expand", x, "mid")
    small = body.unit("small", x_mid, "mid", kernel_size=3, stride=stride, depthwise=True)
    large = body.unit("large", x_mid, "mid", kernel_size=k, stride=stride, depthwise=True)
    y = body.attention(body.add("sum", small, large))
    return body.shortcut(body.unit("project", y, "out", act=False), x)


def main() -> None:
    register(BlockKind(name="two_scales", layers=two_scales, squeezes=True, depthwise=True))
    rows = {"kernel_size": 5, "expand_ratio": 4, "se_ratio": 0.25}
    stages = (
        stage("two_scales", repeats=2, stride=2, in_channels=16, out_channels=24, **rows),
        stage("two_scales", repeats=2, stride=2, in_channels=24, out_channels=40, **rows),
    )
    stem = StemSpec(channels=16)
    small = ArchSpec(
        lineage=Lineage(base="two scales"), num_classes=10, resolution=64, stem=stem, stages=stages, head_channels=160
    )
    spec = scale(small, phi=1)
    state = state_arrays(build(spec, seed=0))
    found = prune(spec, importance=weight_importance(spec, state), limit=0.7 * cost(spec).macs)
    for network in (small, spec, found.spec):
        print(f"{network.name}: {cost(network).params:,} parameters, {cost(network).macs:,} MACs")

    weights = fold_norms(found.spec, transfer(state, source=spec, target=found.spec, keep=found.keep))
    model = to_onnx(found.spec, weights, mean=(0.5,) * 3, std=(0.25,) * 3)
    session = open_bytes(model.SerializeToString())
    image = np.zeros((1, found.spec.resolution, found.spec.resolution, 3), np.uint8)
    print("probabilities in ONNX Runtime:", session.run(None, {IMAGE: image})[0].shape)


if __name__ == "__main__":
    main()
