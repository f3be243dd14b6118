"""Write TensorFlow checkpoints from the public description of their format, with third-party encoders.

Source: LevelDB, doc/table_format.md; tensorflow/core/protobuf/tensor_bundle.proto. The protocol buffers are encoded
by protobuf, the checksums by TensorBoard.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DataType
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

MAGIC = 0xDB4775248B80FB57
RESTARTS_EVERY = 16
DTYPES = {"f4": "DT_FLOAT", "f8": "DT_DOUBLE", "f2": "DT_HALF", "i8": "DT_INT64", "i4": "DT_INT32", "u2": "DT_BFLOAT16"}


def _entry_class():
    file = descriptor_pb2.FileDescriptorProto(name="bundle.proto", package="t", syntax="proto3")
    file.dependency.append(TensorShapeProto.DESCRIPTOR.file.name)
    message = file.message_type.add(name="Entry")
    fields = (("dtype", 1, 5), ("shard_id", 3, 5), ("offset", 4, 3), ("size", 5, 3), ("crc32c", 6, 7))
    for name, number, kind in fields:
        message.field.add(name=name, number=number, type=kind, label=1)
    shape = f".{TensorShapeProto.DESCRIPTOR.full_name}"
    message.field.add(name="shape", number=2, type=11, label=1, type_name=shape)
    message.field.add(name="slices", number=7, type=12, label=3)
    header = file.message_type.add(name="Header")
    header.field.add(name="num_shards", number=1, type=5, label=1)
    header.field.add(name="endianness", number=2, type=5, label=1)
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    find = pool.FindMessageTypeByName
    return tuple(message_factory.GetMessageClass(find(f"t.{name}")) for name in ("Entry", "Header"))


Entry, Header = _entry_class()


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return the contents of one block, keys shortened by the prefix shared with the one before."""
    out, restarts, before = bytearray(), [], b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number % RESTARTS_EVERY == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    for offset in restarts or [0]:
        out += offset.to_bytes(4, "little")
    return bytes(out) + len(restarts or [0]).to_bytes(4, "little")


def table(pairs: list[tuple[bytes, bytes]], *, per_block: int = 40, compression: int = 0) -> bytes:
    """Return a whole table of sorted pairs."""
    out = bytearray()

    def add(content: bytes) -> bytes:
        handle = varint(len(out)) + varint(len(content))
        typed = content + bytes([compression])
        out.extend(typed + masked_crc32c(typed).to_bytes(4, "little"))
        return handle

    index = []
    for start in range(0, len(pairs), per_block):
        part = pairs[start : start + per_block]
        index.append((part[-1][0], add(block(part))))
    handles = add(block([])) + add(block(index))
    return bytes(out) + handles.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def write_checkpoint(
    prefix: Path, arrays: Mapping[str, np.ndarray], *, shards: int = 1, endianness: int = 0, sliced: str = "",
    per_block: int = 40, checksum=masked_crc32c,
) -> None:  # fmt: skip
    """Write PREFIX.index and its data files; arrays of uint16 represent bfloat16."""
    data = [bytearray() for _ in range(shards)]
    pairs = [(b"", Header(num_shards=shards, endianness=endianness).SerializeToString())]
    for number, name in enumerate(sorted(arrays)):
        array, shard = np.asarray(arrays[name], order="C"), number % shards
        entry = Entry(
            dtype=DataType.Value(DTYPES[array.dtype.str[1:]]),
            shard_id=shard,
            offset=len(data[shard]),
            size=array.nbytes,
            crc32c=checksum(array.tobytes()),
            slices=[b""] if name == sliced else [],
        )
        for size in array.shape:
            entry.shape.dim.add(size=size)
        data[shard] += array.tobytes()
        pairs.append((name.encode(), entry.SerializeToString()))
    Path(f"{prefix}.index").write_bytes(table(pairs, per_block=per_block))
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
