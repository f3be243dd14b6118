"""From images and a budget to a model that predicts: handwritten digits, one thread, at most half a millisecond.

python examples/fit_and_predict.py --epochs 30
"""

import argparse

from effnet import fit, load, read_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--max-latency-ms", type=float, default=0.5)
    parser.add_argument("--out", default="effnet-digits-example")
    args = parser.parse_args()

    result = fit("digits", max_latency_ms=args.max_latency_ms, max_params=12_000, epochs=args.epochs, out=args.out)
    print(f"{result.report.network.title}: accuracy {result.test_accuracy:.1%} on the test split")
    print(f"latency {result.latency_ms:.3f} ms of {args.max_latency_ms} ms")

    model = load(result.folder)
    test = read_dataset("digits").test
    for image, label in list(zip(test.sources, test.labels, strict=True))[:5]:
        (found,) = model.predict([image], top=3)
        guesses = ", ".join(f"{name} {p:.0%}" for name, p in zip(found.labels, found.probabilities, strict=True))
        print(f"a {label} looks like {guesses}")


if __name__ == "__main__":
    main()
