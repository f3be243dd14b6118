"""Transfer learning: a classifier for your images on a pretrained backbone.

python examples/transfer_learning.py photos/ --weights timm/tf_efficientnet_lite0.in1k
"""

import argparse

from effnet import evaluate, fit, load, read_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--weights", default="auto", help="an id of `effnet models list`, a file, or a bundle")
    parser.add_argument("--balance", help="for classes of unequal size: adjust, sample or weight")
    parser.add_argument("--out", default="effnet-transfer-example")
    args = parser.parse_args()

    # A linear probe: the backbone is frozen, its features are computed once, and logistic regression is fitted on
    # them. The bundle answers "unknown" if its confidence is below that of 95 % of the validation images.
    result = fit(args.data, weights=args.weights, strategy="head", balance=args.balance, coverage=0.95, out=args.out)
    head = result.report.training.head
    print(f"head on {head.weights}: {head.val_figure:.1%} of the validation images in {head.seconds:.1f} s")

    score = evaluate(load(result.folder), read_dataset(args.data).test)
    print(f"test accuracy {score.accuracy:.1%}, balanced {score.balanced_accuracy:.1%}")
    if score.lowest:
        print(f"lowest recall {score.lowest.recall:.1%}, of {score.lowest.name}")
    print(f"calibration error {score.sureness.ece:.1%}")
    print(f"answers {score.answered.coverage:.1%} of the test images, {score.answered.error:.1%} of those wrong")


if __name__ == "__main__":
    main()
