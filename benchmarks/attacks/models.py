"""Item 3: bundles whose model reads other files, returns nonsense, or requests more memory than available."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.attacks.ground import Attack, Command, Ground


def _predict(ground: Ground, *, codes: tuple[int, ...] = (2,), says: str = "") -> Command:
    return Command(words=("predict", ground.bundle, ground.image), codes=codes, says=says)


def _onnx(ground: Ground, answer: Sequence[float], *, kind: int = 1, external: str = "") -> None:
    """Write a model for digits that returns `answer` for any image; its numbers may be in another file."""
    from onnx import TensorProto, helper

    numbers = helper.make_tensor("numbers", kind, [1, len(answer)], list(answer))
    if external:
        numbers.ClearField("float_data")
        numbers.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", str(4 * len(answer)))):
            numbers.external_data.add(key=key, value=value)
    side = json.loads((ground.bundle / "config.json").read_text())["preprocess"]["resolution"]
    zero = helper.make_tensor("zero", kind, [1, 1], [0])
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers_in"], to=kind),
        helper.make_node("ReduceMean", ["numbers_in"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "numbers"], ["probabilities"]),
    ]
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1])
    graph = helper.make_graph(
        nodes, "answer",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", side, side, 1])],
        [helper.make_tensor_value_info("probabilities", kind, ["batch", len(answer)])],
        [numbers, zero, shape],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    Path(ground.bundle / "model.onnx").write_bytes(model.SerializeToString())
    (ground.bundle / "exports.json").unlink(missing_ok=True)  # an attacker also writes the matching digest
    _config(ground, lambda config: config.pop("sha256", None))


def _config(ground: Ground, change: Any) -> None:
    path = ground.bundle / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def external(relative: bool) -> Any:
    """Return an attack whose numbers are in a file outside the bundle."""

    def prepare(ground: Ground) -> Sequence[Command]:
        place = os.path.relpath(ground.secret, ground.bundle) if relative else str(ground.secret)
        _onnx(ground, [0.1] * 10, external=place)
        return _predict(ground), Command(words=("bench", ground.bundle))

    return prepare


def nonsense(answer: Sequence[float], *, kind: int = 1) -> Any:
    """Return an attack with a model that returns these numbers as probabilities."""

    def prepare(ground: Ground) -> Sequence[Command]:
        _onnx(ground, answer, kind=kind)
        return _predict(ground), Command(words=("evaluate", ground.bundle, "digits"))

    return prepare


def other_network(ground: Ground) -> Sequence[Command]:
    """A good model of other weights: the file is not the verified one."""
    import onnx

    path = ground.bundle / "model.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == 1 and len(tensor.dims) == 2:
            tensor.raw_data = tensor.raw_data[::-1][: len(tensor.raw_data)] or tensor.raw_data
            tensor.raw_data = bytes(len(tensor.raw_data))
    path.write_bytes(model.SerializeToString())
    return (_predict(ground, says="effnet export"),)


def resolution(ground: Ground) -> Sequence[Command]:
    """A resolution that makes an image of 4.8 GB."""

    def change(config: dict[str, Any]) -> None:
        config["arch"]["resolution"] = config["preprocess"]["resolution"] = 40_000

    _config(ground, change)
    return (_predict(ground),)


def huge_integers(ground: Ground) -> Sequence[Command]:
    """Every integer of config.json, each made huge; the network's description alone as well."""
    commands = []
    whole = json.loads((ground.bundle / "config.json").read_text())
    for number, place in enumerate(_integers(whole)):
        changed = json.loads(json.dumps(whole))
        _set(changed, place, 10**9)
        folder = _copy_without(ground, "config.json", f"bundle-{number}")
        (folder / "config.json").write_text(json.dumps(changed))
        commands.append(Command(words=("models", "cost", folder), codes=(0, 2)))
    return commands[:: max(1, len(commands) // 12)]  # a process each; the others are of the same kind


def _copy_without(ground: Ground, name: str, folder_name: str) -> Path:
    """Return a folder with the bundle's files but one."""
    folder = ground.path(folder_name)
    folder.mkdir()
    for file in ground.bundle.iterdir():
        if file.name != name:
            (folder / file.name).symlink_to(file)
    return folder


def _integers(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in _integers(inner, (*place, key))]
    if isinstance(value, list):
        return [found for key, inner in enumerate(value) for found in _integers(inner, (*place, key))]
    return [place] if type(value) is int else []


def _set(value: Any, place: tuple[Any, ...], new: Any) -> None:
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = new


def no_files(ground: Ground) -> Sequence[Command]:
    """Pipes, devices and folders instead of a bundle's files."""
    commands = []
    for number, (name, kind) in enumerate(
        (name, kind) for name in ("config.json", "model.onnx", "exports.json") for kind in ("pipe", "device", "folder")
    ):
        folder = _copy_without(ground, name, f"odd-{number}")
        if kind == "pipe":
            os.mkfifo(folder / name)
        elif kind == "device":
            (folder / name).symlink_to("/dev/zero")
        else:
            (folder / name).mkdir()
        commands.append(Command(words=("predict", folder, ground.image), codes=(0, 2) if "exports" in name else (2,)))
    return commands


def damaged(name: str, file: str) -> Any:
    """Return an attack with an export that is cut and overwritten, in one of the other runtimes."""

    def prepare(ground: Ground) -> Sequence[Command]:
        path = ground.bundle / file
        content = path.read_bytes()
        commands = []
        for number, changed in enumerate(
            (content[: len(content) // 2], content[:1000] + b"\xff" * 64 + content[1064:], bytes(4096), content[8:])
        ):
            folder = _copy_without(ground, file, f"cut-{number}")
            (folder / file).write_bytes(changed)
            commands.append(Command(words=("predict", folder, ground.image, "--use", name)))
        return commands

    return prepare


ATTACKS = (
    Attack(item=3, name="ONNX: external data by a relative path", prepare=external(True)),
    Attack(item=3, name="ONNX: external data by an absolute path", prepare=external(False)),
    Attack(item=3, name="a model that answers NaN", prepare=nonsense([float("nan")] * 10)),
    Attack(item=3, name="a model that answers 99,263 %", prepare=nonsense([992.63] + [0.0] * 9)),
    Attack(item=3, name="a model that answers logits", prepare=nonsense([-3.0, 4.0] + [0.0] * 8)),
    Attack(item=3, name="a model that answers whole numbers", prepare=nonsense([1] + [0] * 9, kind=7)),
    Attack(item=3, name="a model of other weights", prepare=other_network),
    Attack(item=3, name="a resolution of 40,000", prepare=resolution),
    Attack(item=3, name="huge integers in config.json", prepare=huge_integers),
    Attack(item=3, name="pipes, devices and folders in a bundle", prepare=no_files),
    Attack(item=3, name="a damaged ONNX file", prepare=damaged("onnx", "model.onnx")),
    Attack(item=3, name="a damaged TFLite file", prepare=damaged("litert", "model.tflite")),
    Attack(item=3, name="a damaged OpenVINO file", prepare=damaged("openvino", "model.xml")),
    Attack(item=8, name="a damaged .pte file", prepare=damaged("executorch", "model.pte")),
)
