"""List the labels of a folder of images that are probably wrong, and the images to label next.

python examples/wrong_labels.py IMAGES WEIGHTS [UNLABELLED]

WEIGHTS is a bundle, a file or a published id; `effnet models list` shows those.
"""

import sys

import effnet


def main() -> None:
    """Audit the labels, then suggest images of another folder."""
    data, weights, *unlabelled = sys.argv[1:]
    found = effnet.audit(data, weights=weights, most=20)
    print(f"About {found.expected_errors:.1f} of {found.judged} labels are wrong.")
    for error in found.label_errors:
        print(f"{error.probability:.0%} {error.path}: {error.given}, likely {error.likely}")
    for pair in found.near_duplicates[:5]:
        across = " across splits" if pair.across_splits else ""
        print(f"near-duplicates{across}: {pair.paths[0]} and {pair.paths[1]}")
    for folder in unlabelled:
        for path in effnet.suggest(folder, weights=weights, labelled=data, number=5).paths:
            print(f"label next: {path}")


if __name__ == "__main__":
    main()
