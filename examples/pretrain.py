"""Continue the pretraining of weights on images without labels, then fit labelled images from them.

python examples/pretrain.py UNLABELLED IMAGES WEIGHTS [EPOCHS]

WEIGHTS is a bundle, a file or a published id; `effnet models list` shows those.
"""

import sys

import effnet


def main() -> None:
    """Pretrain, judge the weights by a linear probe, and fit a head on them."""
    unlabelled, data, weights, *epochs = sys.argv[1:]
    found = effnet.pretrain(
        unlabelled, weights=weights, probe=data, epochs=int(epochs[0]) if epochs else 10, out="backbone"
    )
    verb = "better" if found.kept else "not better, and were not kept"
    print(f"linear probe: {found.before:.1%} before, {found.after:.1%} after; the new weights are {verb}")
    print("loss on held-out images:", ", ".join(f"{loss:.3f}" for loss in found.losses))
    result = effnet.fit(data, weights=found.folder, strategy="head", out="fitted")
    print(f"test accuracy {result.test_accuracy:.1%}")


if __name__ == "__main__":
    main()
