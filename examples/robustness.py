"""Score a bundle on corrupted and on attacked images, and compare a folder of new images with its test images.

python examples/robustness.py BUNDLE DATA [NEW_IMAGES]

DATA are labelled images, such as those of the fit; attacks need the extra `train`.
"""

import sys

import effnet


def main() -> None:
    """Print the mean corrupted accuracy of each export, the accuracy under attack, and the drift."""
    bundle, data, *folders = sys.argv[1:]
    model = effnet.load(bundle)
    found = effnet.evaluate(model, data, corruptions=True, severity=3)
    for mean in found.means:
        low, high = mean.interval
        print(f"{mean.format}: mean corrupted accuracy {mean.accuracy:.1%} ({low:.1%} to {high:.1%})")
    worst = min(found.conditions, key=lambda each: each.accuracy)
    print(f"worst: {worst.kind} {worst.accuracy:.1%}, calibration error {worst.ece:.1%}")
    for row in effnet.evaluate(model, data, adversarial=1).rows:
        print(f"{row.format} {row.method or 'clean'} within {row.eps}: {row.accuracy:.1%}")
    for folder in folders:
        drift = effnet.monitor(model, folder, reference=data)
        changed = [each.name for each in drift.shifts if each.drifted]
        print(f"{folder}: {'drift' if drift.drifted else 'no drift'}; changed: {', '.join(changed) or 'nothing'}")


if __name__ == "__main__":
    main()
