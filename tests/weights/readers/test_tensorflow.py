"""TensorFlow's checkpoints with right checksums and absurd numbers."""

import numpy as np
import pytest
from checkpoints import Entry, Header, block, table, varint, write_checkpoint
from hostile import refused_cheaply
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from effnet.weights.readers.files import read_arrays
from effnet.weights.readers.tensorflow import read_table


def write(prefix, entries, *, data=bytes(4000)):
    header = Header(num_shards=1).SerializeToString()
    pairs = [(b"", header), *((f"v{n:05d}".encode(), entry) for n, entry in enumerate(entries))]
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(pairs))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return prefix


def entry(*shape, **fields):
    made = Entry(dtype=1, **{"size": 4000, "crc32c": masked_crc32c(bytes(4000))} | fields)
    for size in shape:
        made.shape.dim.add(size=size)
    return made.SerializeToString()


@pytest.mark.parametrize(
    "entries, words",
    [
        ([entry(10**10, size=4 * 10**10)], "need 40,000,000,000 bytes, and the file has 4,000"),
        ([entry(1000)] * 100, "need 68,000 bytes, and the file has 4,000"),
        ([entry(-1)], "negative or no number"),
        ([entry(0, 2**62, size=0)], "must have a shape"),
        ([entry(*[1] * 70, size=4)], "must have a shape"),
        ([entry(1000, offset=-4)], "negative or no number"),
        ([entry(1000, offset=2**62)], "lies beyond the end of the file"),
        ([entry(1000, shard_id=7)], "has its numbers in m.data-00007-of-00001, which is not beside it"),
        ([b"\x0a\x01\x01"], "negative or no number"),
        ([b"\x08\x01\x10\x05"], "must be the index of a TensorFlow checkpoint"),
        ([b"\x08\x01" + b"\x12\xff\xff\xff\xff\x0f"], "is cut off"),
    ],
)
def test_an_entry_that_nobody_can_mean_is_refused(tmp_path, entries, words):
    with refused_cheaply(words):
        read_arrays(write(tmp_path / "m", entries))


def test_names_that_grow_without_end_are_refused():
    """Each takes up the name before it whole, and adds one byte in three."""
    key = b"a" * 4000
    start = varint(0) + varint(len(key)) + varint(0) + key
    content = start + (varint(4000) + varint(97) + varint(0) + b"b" * 97) * 3 + bytes(4) + (1).to_bytes(4, "little")
    index = block([(b"z", varint(0) + varint(len(content)))])
    with pytest.raises(ValueError, match="a name in it is too long"):
        list(read_table(_assembled(content, index)))


def test_one_block_is_not_read_without_end():
    content = block([(b"a", b"b" * 500)])
    index = block([(f"z{n:03d}".encode(), varint(0) + varint(len(content))) for n in range(100)])
    with pytest.raises(ValueError, match="its blocks overlap"):
        list(read_table(_assembled(content, index)))


def _assembled(*blocks):
    out, handles = b"", []
    for content in blocks:
        handles.append(varint(len(out)) + varint(len(content)))
        out += content + b"\0" + masked_crc32c(content + b"\0").to_bytes(4, "little")
    return out + (varint(0) * 2 + handles[-1]).ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def test_a_long_index_and_a_long_list_of_checkpoints_are_refused(tmp_path):
    write_checkpoint(tmp_path / "m", {"a": np.ones(3, np.float32)})
    with open(tmp_path / "m.index", "r+b") as file:
        file.truncate(9 * 10**6)
    with refused_cheaply("it must have at most 8,000,000 bytes; it has more|File too large"):
        read_arrays(tmp_path / "m")
    with open(tmp_path / "checkpoint", "wb") as file:
        file.truncate(2 * 10**9)
    with refused_cheaply("it must have at most 1,000,000 bytes; it has more|File too large"):
        read_arrays(tmp_path)
