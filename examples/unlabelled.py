"""Fit labelled images and learn from images without labels as well.

python examples/unlabelled.py IMAGES UNLABELLED WEIGHTS [EPOCHS]

WEIGHTS is a bundle, a file or a published id; `effnet models list` shows those.
"""

import sys

import effnet


def main() -> None:
    """Fit, and print what the unlabelled images added."""
    data, unlabelled, weights, *epochs = sys.argv[1:]
    length = {"epochs": int(epochs[0])} if epochs else {"minutes": 15}
    result = effnet.fit(data, unlabelled=unlabelled, weights=weights, out="with-unlabelled", **length)
    facts = result.report.training.unlabelled
    print(f"{facts.images} images without a label; copies left out: {sum(facts.copies.values())}")
    for number, found in enumerate(facts.rounds, 1):
        if found.precision is not None:
            print(f"round {number}: {found.passed} pseudo-labels, {found.precision:.0%} right on validation images")
            names = result.report.dataset.class_names
            print(", ".join(f"{name} {count}" for name, count in zip(names, found.classes, strict=True)))
        elif found.thresholds:
            print(found.sentences[0])
        print(found.sentence)
    print(f"test accuracy {result.test_accuracy:.1%}")


if __name__ == "__main__":
    main()
