"""Images and words: align a network with captions, make a classifier of words, and find images by a text.

python examples/images_and_words.py captions.csv --words glove.txt --weights timm/tf_efficientnet_lite0.in1k \
    --classes "shirt,shoe" --query "blue shirt"
"""

import argparse
from pathlib import Path

from effnet import align, find, load, zeroshot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a manifest with the columns path and title")
    parser.add_argument("--words", required=True, help="a table of words, a sentence encoder, or user/name on the hub")
    parser.add_argument("--weights", default="timm/tf_efficientnet_lite0.in1k")
    parser.add_argument("--classes", required=True, help="class names with commas")
    parser.add_argument("--query", required=True)
    parser.add_argument("--out", default="effnet-words-example", type=Path)
    args = parser.parse_args()

    # A linear map from the features of the frozen network to the vectors of the captions, solved for in seconds.
    aligned = align(args.data, text="title", words=args.words, weights=args.weights, out=args.out / "aligned")
    test = aligned.test
    print(f"own caption among the ten nearest of {test.candidates}: {test.recall_at_10:.1%} (random {test.chance:.1%})")

    # The classifier's weights are the vectors of the class names: it exports, quantizes and predicts like any other.
    classifier = zeroshot(aligned.folder, args.classes, out=args.out / "classifier")
    # The first search embeds every image and keeps the vectors; later ones only compare them.
    found = find(aligned.folder, Path(args.data).parent, args.query, top=5, out=args.out / "page.html")
    answers = load(classifier.folder).predict([hit.path for hit in found.hits])
    for hit, answer in zip(found.hits, answers, strict=True):
        print(f"{hit.cosine:.3f} {hit.path}: {answer.label}")


if __name__ == "__main__":
    main()
