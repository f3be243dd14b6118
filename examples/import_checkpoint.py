"""Your own checkpoint: make a bundle of it, evaluate and export it.

python examples/import_checkpoint.py model_best.pth.tar --classes names.txt --data photos/
"""

import argparse

from effnet import evaluate, export, import_checkpoint, load, read_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="saved by timm, torchvision, Keras, Lightning or a script of your own")
    parser.add_argument("--classes", help="names in the order of the outputs, one per line; or the training data")
    parser.add_argument("--model", help="such as efficientnet_b0, if it cannot be inferred")
    parser.add_argument("--resolution", type=int, help="input resolution in training, in pixels")
    parser.add_argument("--data", required=True, help="labelled images to evaluate it on")
    parser.add_argument("--out", default="effnet-import-example")
    args = parser.parse_args()

    found = import_checkpoint(
        args.checkpoint,
        classes=args.classes,
        model=args.model,
        preprocess={"resolution": args.resolution},
        out=args.out,
    )
    print(*found.notes, sep="\n")

    # A wrong class order or preprocessing shows here: compare the accuracy with your own script's.
    score = evaluate(load(found.folder), read_dataset(args.data).test)
    print(f"test accuracy {score.accuracy:.1%}")
    export(found.folder, to=["onnx-fp16"])
    print(f"{found.folder} predicts {len(found.config.class_names)} classes: effnet predict {found.folder} IMAGES")


if __name__ == "__main__":
    main()
