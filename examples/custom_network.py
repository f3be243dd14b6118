"""A network of your own: stages as in the paper's Table 1, built, counted and run.

python examples/custom_network.py
"""

import torch

from effnet import ArchSpec, Lineage, build, cost, describe, stage
from effnet.arch.spec import StemSpec


def main() -> None:
    spec = ArchSpec(
        lineage=Lineage(base="pocket"),
        num_classes=10,
        resolution=96,
        stem=StemSpec(channels=16),
        stages=(
            stage("mbconv", repeats=1, kernel_size=3, expand_ratio=1, in_channels=16, out_channels=8, se_ratio=0.25),
            stage("fused_mbconv", repeats=2, kernel_size=3, stride=2, expand_ratio=4, in_channels=8, out_channels=16),
            stage("mbconv", repeats=3, kernel_size=5, stride=2, expand_ratio=6, in_channels=16, out_channels=32),
            stage(
                "mbconv",
                repeats=2,
                kernel_size=3,
                stride=2,
                expand_ratio=6,
                in_channels=32,
                out_channels=64,
                se_ratio=0.25,
            ),
        ),
        head_channels=256,
    )
    print(describe(spec).split("\n\nlayer")[0])

    network = build(spec, dropout=0.2, drop_path=0.1, seed=0).eval()
    counted, built = cost(spec).params, sum(p.numel() for p in network.parameters())
    print(f"parameters: {counted:,} by formula, {built:,} as built")
    with torch.no_grad():
        logits = network(torch.zeros(2, 3, spec.resolution, spec.resolution))
    print(f"logits: {tuple(logits.shape)}")


if __name__ == "__main__":
    main()
