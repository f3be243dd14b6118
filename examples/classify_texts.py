"""Text classification through the vectors of words: the same linear probe as on image features.

python examples/classify_texts.py texts.csv --words glove.txt
"""

import argparse
import csv

import numpy as np

from effnet.training.transfer.head import train_head
from effnet.words.read import open_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a CSV file with the columns text and label")
    parser.add_argument("--words", required=True)
    args = parser.parse_args()

    with open(args.data, encoding="utf-8", newline="") as file:
        texts, names = zip(*((row["text"], row["label"]) for row in csv.DictReader(file)), strict=True)
    classes, labels = np.unique(names, return_inverse=True)
    vectors = open_words(args.words).encoder.encode(texts).vectors
    part = np.random.default_rng(0).permutation(len(texts)) % 10  # 7 parts train, 1 chooses the penalty, 2 test
    train, val, test = part < 7, part == 7, part > 7
    head = train_head(
        vectors[train], labels[train], num_classes=len(classes), val_features=vectors[val], val_labels=labels[val]
    )
    right = (vectors[test] @ head.weight.T + head.bias).argmax(1) == labels[test]
    print(
        f"{right.mean():.1%} of {test.sum()} texts are right; {np.bincount(labels).max() / len(labels):.1%} by guessing"
    )


if __name__ == "__main__":
    main()
