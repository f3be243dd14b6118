"""Small captioned images of colours, words for them, and a network that sees colours."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

import effnet
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, StemSpec, stage
from effnet.data.preprocess import Preprocess

SIDE, WIDTH = 16, 12
COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "yellow": (230, 220, 40),
    "black": (15, 15, 15), "white": (240, 240, 240), "pink": (240, 150, 190), "brown": (120, 70, 30),
}  # fmt: skip
NOUNS = ("shirt", "shoe")


def draw(colour: str, noun: str, rng: np.random.Generator) -> np.ndarray:
    """Return an image of a colour: all of it for a shirt, its lower half for a shoe."""
    image = np.full((SIDE, SIDE, 3), 128.0)
    image[0 if noun == "shirt" else SIDE // 2 :] = COLOURS[colour]
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def write_captioned(folder: Path, *, each: int = 12, seed: int = 0) -> Path:
    """Write `each` images of every colour and noun, and return the manifest of their captions, the column title."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows = []
    for colour in COLOURS:
        for noun in NOUNS:
            for number in range(each):
                name = f"images/{colour}-{noun}-{number}.png"
                Image.fromarray(draw(colour, noun, rng)).save(folder / name)
                rows.append((name, f"{colour.title()} {noun} number {number}", noun))
    return write_rows(folder / "captions.csv", rows)


def write_rows(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("path", "title", "kind")) -> Path:
    """Write a manifest."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def vocabulary() -> list[str]:
    """Return the words of the table."""
    return [*COLOURS, *NOUNS, "number", "a", "photo", "of", *map(str, range(12))]


def vectors(*, seed: int = 1, width: int = WIDTH) -> np.ndarray:
    """Return a vector for each word; those of numbers are short, as they say little."""
    rows = np.random.default_rng(seed).normal(size=(len(vocabulary()), width))
    rows[len(COLOURS) + len(NOUNS) :] *= 0.1
    return rows.astype(np.float32)


def write_glove(path: Path, *, width: int = WIDTH) -> Path:
    """Write the words as GloVe's text file."""
    rows = zip(vocabulary(), vectors(width=width), strict=True)
    lines = (" ".join([word, *(f"{x:.5f}" for x in row)]) for word, row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tokenizer_json() -> str:
    """Return a tokenizer.json of the words, with a token for all others."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ["[UNK]", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str()


def write_table(folder: Path, *, width: int = WIDTH) -> Path:
    """Write the words as a safetensors table with its tokenizer."""
    import safetensors.numpy

    folder.mkdir(parents=True)
    rows = np.concatenate([np.ones((1, width), np.float32), vectors(width=width)])
    safetensors.numpy.save_file({"embedding.weight": rows.astype(np.float16)}, folder / "table.safetensors")
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    return folder


def write_encoder(
    folder: Path,
    *,
    pooled: bool = False,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    broken: bool = False,
) -> Path:
    """Write a sentence encoder of the words' vectors; with `pooled` it returns that of the first token."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    rows = np.concatenate([np.zeros((1, WIDTH), np.float32), vectors()])
    if broken:
        rows[:] = np.nan
    nodes = [helper.make_node("Gather", ["rows", "input_ids"], ["last_hidden_state"])]
    shape = ["batch", "length", WIDTH]
    if pooled:
        nodes.append(helper.make_node("Gather", ["last_hidden_state", "first"], ["pooled"], axis=1))
        shape = ["batch", WIDTH]
    name = "pooled" if pooled else "last_hidden_state"
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(one, TensorProto.INT64, ["batch", "length"]) for one in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(rows, "rows"), numpy_helper.from_array(np.array(0), "first")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder


def write_backbone(folder: Path) -> Path:
    """Write the bundle of a tiny network without a classifier; untrained filters tell colours apart."""
    spec = ArchSpec(
        lineage=Lineage(base="tiny"),
        num_classes=0,
        resolution=SIDE,
        stem=StemSpec(channels=8),
        stages=(stage("mbconv", repeats=1, out_channels=8, in_channels=8, expand_ratio=2),),
        head_channels=64,
    )
    network = effnet.build(spec, seed=3)
    return effnet.save(network, folder, preprocess=Preprocess(resolution=SIDE))
