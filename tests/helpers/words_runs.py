"""An alignment that trains a network, which torchrun starts: python words_runs.py PLACE OUT LOSS."""

import sys
from pathlib import Path

import effnet

SETTINGS = {"train.epochs": 2, "train.batch_size": 32, "train.lr": 1e-3, "train.fused": False, "model.drop_path": 0.0}


def align(place: Path, out: Path, loss: str) -> effnet.AlignResult:
    """Align the images of colours in `place` with their captions, with a weight for each token."""
    return effnet.align(
        place / "data" / "captions.csv",
        text="title",
        words=place / "glove.txt",
        weights=place / "backbone",
        out=out,
        loss=loss,
        image="trained",
        texts="weights",
        settings=SETTINGS | {"model.dropout": 0.0},
    )


if __name__ == "__main__":
    found = align(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    print(f"R@10 {found.test.recall_at_10:.6f}")
