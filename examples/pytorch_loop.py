"""Train a network of effnet in your own PyTorch loop, then make a bundle of it that predicts without torch.

python examples/pytorch_loop.py DATA --model lite0 --pretrained --epochs 5 --out pytorch-model
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import effnet


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("pytorch-model"))
    args = parser.parse_args()

    dataset = effnet.read_dataset(args.data)  # or effnet.Dataset.from_arrays(images, labels)
    spec = dataclasses.replace(effnet.get_spec(args.model), resolution=args.resolution)
    model = effnet.create_model(spec, pretrained=args.pretrained, num_classes=len(dataset.class_names), dropout=0.2)
    train = dataset.train.to_torch(effnet.transforms(model, train=True))
    val = dataset.val.to_torch(effnet.transforms(model))

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(args.epochs):
        model.train()
        for images, labels in DataLoader(train, batch_size=16, shuffle=True, drop_last=True):
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in DataLoader(val, batch_size=16))
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, validation accuracy {right / len(val):.1%}")

    effnet.save(model, args.out, class_names=dataset.class_names)
    score = effnet.evaluate(effnet.load(args.out), dataset.test)
    print(f"test accuracy of {args.out / 'model.onnx'}: {score.accuracy:.1%}")


if __name__ == "__main__":
    main()
