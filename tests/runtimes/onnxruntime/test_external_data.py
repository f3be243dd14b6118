"""References of an ONNX model to other files are found anywhere; any bytes give an answer or a ValueError."""

from contextlib import suppress

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from effnet.runtimes.onnxruntime import external_data
from effnet.runtimes.onnxruntime.external_data import has_external_data


def tensor(*, outside: bool) -> TensorProto:
    made = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[4], raw_data=b"abcd")
    if outside:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="/etc/passwd")
    return made


def graph(*nodes, initializer=()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], list(initializer))


def constant(value) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], value=value)


def sparse(values) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=tensor(outside=False), dims=[9])


def model(inside=None, **fields) -> onnx.ModelProto:
    return onnx.ModelProto(ir_version=9, graph=inside or graph(), **fields)


def within(depth: int, inner: onnx.NodeProto) -> onnx.NodeProto:
    for _ in range(depth):
        inner = helper.make_node("If", ["c"], ["y"], then_branch=graph(inner))
    return inner


PLACES = {
    "initializer": lambda t: model(graph(initializer=[t])),
    "constant": lambda t: model(graph(constant(t))),
    "a subgraph of a subgraph": lambda t: model(graph(within(3, constant(t)))),
    "a list of tensors": lambda t: model(graph(helper.make_node("X", [], [], many=[t, t]))),
    "a list of graphs": lambda t: model(graph(helper.make_node("X", [], [], many=[graph(initializer=[t])]))),
    "a sparse initializer": lambda t: model(onnx.GraphProto(name="g", sparse_initializer=[sparse(t)])),
    "a sparse constant": lambda t: model(graph(helper.make_node("Constant", [], ["w"], sparse_value=sparse(t)))),
    "a function": lambda t: model(functions=[onnx.FunctionProto(name="f", node=[constant(t)])]),
    "a function's default": lambda t: model(
        functions=[onnx.FunctionProto(name="f", attribute_proto=[onnx.AttributeProto(name="a", type=4, t=t)])]
    ),
    "training": lambda t: model(training_info=[onnx.TrainingInfoProto(algorithm=graph(initializer=[t]))]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("outside", [True, False])
def test_another_file_is_found_wherever_a_tensor_may_stand(place, outside):
    assert has_external_data(PLACES[place](tensor(outside=outside)).SerializeToString()) is outside


@pytest.mark.parametrize("field", ["data_location", "external_data"])
def test_either_field_of_a_tensor_is_enough(field):
    # A parser merges the parts of a message that is in a file twice; each part alone is no reference to another file.
    half = tensor(outside=True)
    half.ClearField(field)
    assert has_external_data(model(graph(initializer=[half])).SerializeToString())


def test_what_effnet_writes_has_none(small_bundle):
    assert has_external_data((small_bundle / "model.onnx").read_bytes()) is False


@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_a_value_error(data):
    with suppress(ValueError):
        assert has_external_data(data) in (True, False)


@given(st.data())
def test_a_changed_byte_is_an_answer_or_a_value_error(data):
    content = bytearray(PLACES["a subgraph of a subgraph"](tensor(outside=True)).SerializeToString())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        assert has_external_data(bytes(content)) in (True, False)


def test_nesting_and_fields_without_end_are_refused(monkeypatch):
    deep = b""
    for _ in range(60):  # each a node in a graph, 2 levels
        deep = b"\x0a" + length(b"\x2a" + length(b"\x32" + length(deep)))
    with pytest.raises(ValueError, match="nested at most 100 deep"):
        has_external_data(b"\x3a" + length(deep))
    monkeypatch.setattr(external_data, "_MAX_FIELDS", 1_000)
    with pytest.raises(ValueError, match="fewer than 1,000 fields"):
        has_external_data(b"\x08\x01" * 1_001)


def length(data: bytes) -> bytes:
    size, out = len(data), b""
    while True:
        out += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return out + data
