"""Write tensors and operators as a TFLite file, with the classes of the format's own schema."""

import copy
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from effnet.errors import MissingExtraError
from effnet.runtimes.onnxruntime.session import IMAGE

SIGNATURE = "serving_default"

# Schema 3 is the only one that runtimes since 2018 read.
_SCHEMA_VERSION = 3
# Vectorised kernels read constants in place in the file.
_ALIGNMENT = 16
# Functions that are fused into the operator before them.
FUSED = {"relu": "RELU", "relu6": "RELU6"}


def load_schema() -> ModuleType:
    """Import the classes of the format's schema; raise MissingExtraError without ai-edge-litert."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "litert") from error
    return schema_py_generated


class Graph:
    """The tensors and operators of a graph under construction; a tensor is identified by its index."""

    def __init__(self) -> None:
        self.schema: Any = load_schema()
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[str] = []
        self.buffers: list[bytes] = [b""]  # by convention the first is empty, for tensors without constants
        self._constants: dict[str, int] = {}

    def tensor(self, name: str, shape: Sequence[int], kind: str = "FLOAT32", *, buffer: int = 0) -> int:
        """Add a tensor; without a buffer its first dimension is the dynamic batch."""
        found = self.schema.TensorT()
        found.name, found.shape, found.buffer, found.hasRank = name, list(shape), buffer, True
        found.type = getattr(self.schema.TensorType, kind)
        if not buffer:
            found.shapeSignature = [-1, *shape[1:]]
        self.tensors.append(found)
        return len(self.tensors) - 1

    def constant(self, name: str, array: np.ndarray) -> int:
        """Add a constant, once per name."""
        if name not in self._constants:
            self.buffers.append(np.ascontiguousarray(array).tobytes())
            kind = {"float32": "FLOAT32", "int32": "INT32"}[array.dtype.name]
            self._constants[name] = self.tensor(name, array.shape, kind, buffer=len(self.buffers) - 1)
        return self._constants[name]

    def find_constant(self, name: str) -> int | None:
        """Return the constant called `name`, None if there is none."""
        return self._constants.get(name)

    def operator(self, op: str, inputs: Sequence[int], name: str, shape: Sequence[int], options: Any = None) -> int:
        """Add an operator with one output called `name`, and return the output."""
        if op not in self.codes:
            self.codes.append(op)
        found = self.schema.OperatorT()
        found.opcodeIndex, found.inputs = self.codes.index(op), list(inputs)
        found.outputs = [self.tensor(name, shape)]
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            found.builtinOptionsType, found.builtinOptions = getattr(self.schema.BuiltinOptions, kind), options
        self.operators.append(found)
        return found.outputs[0]

    def shape(self, tensor: int) -> list[int]:
        return self.tensors[tensor].shape

    def options(self, kind: str, **fields: Any) -> Any:
        """Return the options of an operator, such as Conv2DOptions; unknown fields are an error."""
        return getattr(self.schema, f"{kind}OptionsT")(**fields)

    def activation(self, function: str) -> int:
        """Return the code of a function fused into an operator; none for ""."""
        return getattr(self.schema.ActivationFunctionType, FUSED.get(function, "NONE"))

    def model(self, *, description: str, image: int, outputs: Sequence[int]) -> Any:
        """Return the whole graph as a ModelT, with one signature from `image` to `outputs`."""
        schema = self.schema
        graph = schema.SubGraphT(
            tensors=self.tensors, inputs=[image], outputs=list(outputs), operators=self.operators, name="main"
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(name=IMAGE, tensorIndex=image)],
            outputs=[schema.TensorMapT(name=self.tensors[output].name, tensorIndex=output) for output in outputs],
            signatureKey=SIGNATURE,
        )
        return schema.ModelT(
            version=_SCHEMA_VERSION,
            description=description,
            operatorCodes=[operator_code(schema, op) for op in self.codes],
            subgraphs=[graph],
            buffers=[schema.BufferT(data=np.frombuffer(data, np.uint8)) for data in self.buffers],
            signatureDefs=[signature],
        )


def operator_code(schema: Any, op: str, *, version: int = 1) -> Any:
    """Return the entry of an operator in a model's operator list."""
    code = getattr(schema.BuiltinOperator, op)
    # Readers older than the wide field use the narrow one, which cannot hold codes above 127.
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)


def serialise(model: Any) -> bytes:
    """Return the file of a ModelT, its constants aligned as by the format's own writer."""
    import flatbuffers

    schema = load_schema()
    packed = copy.copy(model)
    packed.buffers = [_Constant(schema, buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1024 + sum(len(buffer.data) + _ALIGNMENT for buffer in packed.buffers))
    builder.Finish(packed.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _Constant:
    """A buffer that packs itself at an aligned offset, which the generated class does not."""

    def __init__(self, schema: ModuleType, data: Any) -> None:
        self._schema = schema
        self.data = b"" if data is None else bytes(data)

    def Pack(self, builder: Any) -> int:
        vector = None
        if self.data:
            builder.StartVector(1, len(self.data), _ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            vector = builder.EndVector()
        self._schema.BufferStart(builder)
        if vector is not None:
            self._schema.BufferAddData(builder, vector)
        return self._schema.BufferEnd(builder)
