"""Item 2: files of weights that read other files, never end, or request more memory than available."""

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.attacks.ground import Attack, Command, Ground

# The network is inferred from the file, or given; either way these files are useless.
_FIT = ("--model", "lite0", "--set", "fit.max_params=9M", "--epochs", "1")


# A program that reads weights; the arrays are printed, which shows copied data.
_READ = """import pathlib, sys
from effnet.errors import EffnetError
from effnet.weights.readers.files import read_arrays
try:
    arrays = read_arrays(pathlib.Path(sys.argv[1]))
except EffnetError as error:
    sys.exit(print(error) or error.exit_code)
sys.stdout.buffer.write(b"".join(array.tobytes()[:10000] for array in arrays.values()))
"""


def _fit(ground: Ground, path: Path) -> Command:
    out = ground.path(f"out-{path.name}")
    return Command(words=("fit", "digits", "--weights", path, *_FIT, "--out", out))


def _h5(name: str, fill: Callable[[object, Ground], None]) -> Callable[[Ground], Sequence[Command]]:
    """Return a function that makes a Keras file with h5py, once as .h5 and once in a .keras archive."""

    def prepare(ground: Ground) -> Sequence[Command]:
        import h5py

        path, archive = ground.path(f"{name}.h5"), ground.path(f"{name}.keras")
        with h5py.File(path, "w") as file:
            fill(file, ground)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.write(path, "model.weights.h5")
        read = [Command(words=(_READ, file), python=True) for file in (path, archive)]
        return *read, _fit(ground, path)

    return prepare


def _external(file: object, ground: Ground) -> None:
    size = ground.secret.stat().st_size // 4
    file.create_dataset(
        "model_weights/a/a/kernel:0", shape=(size,), dtype="<f4", external=[(str(ground.secret), 0, 4 * size)]
    )


def _virtual(file: object, ground: Ground) -> None:
    import h5py

    other = ground.path("private/other.h5")
    with h5py.File(other, "w") as private:
        private.create_dataset("a", shape=(100,), dtype="<f4", external=[(str(ground.secret), 0, 400)])
    layout = h5py.VirtualLayout(shape=(100,), dtype="<f4")
    layout[:] = h5py.VirtualSource(str(other), "a", shape=(100,))
    file.create_virtual_dataset("model_weights/a/a/kernel:0", layout)


def _linked(file: object, ground: Ground) -> None:
    import h5py

    other = ground.path("private/other.h5")
    with h5py.File(other, "w") as private:
        private["a/a/kernel:0"] = list(map(float, range(100)))
    file["model_weights"] = h5py.ExternalLink(str(other), "/")


def _huge(file: object, ground: Ground) -> None:
    file.create_dataset("model_weights/a/a/kernel:0", shape=(30 * 10**9,), dtype="<f4", chunks=(10**6,), compression=9)


def contains_itself(ground: Ground) -> Sequence[Command]:
    """A state dict within itself."""
    import torch

    path, content = ground.path("itself.pth"), {}
    content["state_dict"] = content
    torch.save(content, path)
    return (_fit(ground, path),)


def stretched(ground: Ground) -> Sequence[Command]:
    """A tensor of one number that claims to be 40 GB."""
    import torch

    path = ground.path("stretched.pth")
    torch.save({"a.weight": torch.zeros(1).expand(10**10)}, path)
    return (_fit(ground, path),)


def _safetensors(dtype: str, shape: Sequence[int], content: bytes) -> bytes:
    header = json.dumps({"a": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, len(content)]}}).encode()
    return struct.pack("<Q", len(header)) + header + content


def unusual_numbers(ground: Ground) -> Sequence[Command]:
    """Number types that numpy lacks, and a header that declares more than the file has."""
    commands = []
    for dtype, width in (("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F4", 1), ("C64", 8), ("X9", 4)):
        path = ground.path(f"{dtype}.safetensors")
        path.write_bytes(_safetensors(dtype, (4,), bytes(4 * width)))
        commands.append(_fit(ground, path))
    path = ground.path("cut.safetensors")
    path.write_bytes(struct.pack("<Q", 10**12) + b"{}")
    (ground.bundle / "model.safetensors").write_bytes(_safetensors("BF16", (4,), bytes(8)))
    export = Command(words=("export", ground.bundle, "--to", "litert"))
    return (*commands, _fit(ground, path), export)


def damaged(ground: Ground) -> Sequence[Command]:
    """A .pth file that is cut, or whose middle is gone."""
    import torch

    stream = io.BytesIO()
    torch.save({f"layer{i}.weight": torch.randn(64, 64) for i in range(4)}, stream)
    commands = []
    for number, share in enumerate((0.1, 0.5, 0.9, 0.99)):
        path = ground.path(f"cut{number}.pth")
        path.write_bytes(stream.getvalue()[: int(share * len(stream.getvalue()))])
        commands.append(_fit(ground, path))
    return commands


def bomb(ground: Ground) -> Sequence[Command]:
    """A .keras archive of 10 MB that unpacks to 10 GB."""
    path = ground.path("bomb.keras")
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("model.weights.h5", "w", force_zip64=True) as member,
    ):
        for _ in range(10_000):
            member.write(bytes(10**6))
    return (_fit(ground, path),)


def no_files(ground: Ground) -> Sequence[Command]:
    """A pipe and a device as weights."""
    os.mkfifo(ground.path("pipe.pth"))
    return _fit(ground, ground.path("pipe.pth")), _fit(ground, Path("/dev/zero"))


ATTACKS = (
    Attack(item=2, name="Keras: external storage", prepare=_h5("external", _external)),
    Attack(item=2, name="Keras: a virtual data set", prepare=_h5("virtual", _virtual)),
    Attack(item=2, name="Keras: an external link", prepare=_h5("linked", _linked)),
    Attack(item=2, name="Keras: 2 KB that ask for 120 GB", prepare=_h5("huge", _huge)),
    Attack(item=2, name="Keras: an archive of 10 MB that unpacks to 10 GB", prepare=bomb),
    Attack(item=2, name="a state dict that contains itself", prepare=contains_itself),
    Attack(item=2, name="a tensor of one number that claims 40 GB", prepare=stretched),
    Attack(item=2, name="safetensors with bf16, f8 and unknown kinds of numbers", prepare=unusual_numbers),
    Attack(item=2, name="damaged .pth files", prepare=damaged),
    Attack(item=2, name="a pipe and a device as weights", prepare=no_files),
)
