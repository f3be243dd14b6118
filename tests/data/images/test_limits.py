import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.datasets import read_dataset
from effnet.data.images import decode
from effnet.data.images.limits import MAX_BYTES, HeaderStream, Room, check_pixels
from effnet.data.inspection.inspect import inspect_dataset
from effnet.errors import ImageError

MB = 2**20


def test_large_images_wait_until_there_is_room() -> None:
    room, inside, most, lock = Room(100 * MB), [0], [0], threading.Lock()

    def decode(size: int) -> None:
        with room.taken(size):
            with lock:
                inside[0] += size
                most[0] = max(most[0], inside[0])
            threading.Event().wait(0.005)
            with lock:
                inside[0] -= size

    sizes = [60 * MB, 30 * MB, 100 * MB, 50 * MB, 45 * MB] * 3
    threads = [threading.Thread(target=decode, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 60 * MB <= most[0] <= 100 * MB


def test_a_thread_never_waits_for_itself_and_more_than_all_is_all() -> None:
    room = Room(100 * MB)
    with room.taken(1000 * MB), room.taken(90 * MB):
        pass
    with pytest.raises(ZeroDivisionError), room.taken(100 * MB):
        raise ZeroDivisionError
    with room.taken(100 * MB):  # it was released
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_all_the_room_to_itself() -> None:
    """Memory reserved by the parent's threads, and their locks, would never be released in the child."""
    code = """
import os, signal, threading
from effnet.data.images.limits import MAX_BYTES, ROOM
taken, done = threading.Event(), threading.Event()
def hold():
    with ROOM.taken(MAX_BYTES):
        taken.set()
        done.wait()
threading.Thread(target=hold).start()
taken.wait()
child = os.fork()
if not child:
    signal.alarm(60)
    with ROOM.taken(MAX_BYTES):
        os._exit(0)
status = os.waitpid(child, 0)[1]
done.set()
raise SystemExit(status)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=300)


def test_inspection_decodes_large_images_one_after_another(make_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder({f"{split}/{label}": 2 for split in ("train", "val", "test") for label in "ab"})
    inside, most, lock = [0], [0], threading.Lock()

    def load(image: Image.Image) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.005)
        image.load()
        with lock:
            inside[0] -= 1

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(decode, "load_image", load)
    monkeypatch.setattr(decode, "decoding_bytes", lambda *_, **__: 0.6 * MAX_BYTES)
    assert inspect_dataset(read_dataset(folder, channels=3)).num_examined == 12
    assert most[0] == 1
    monkeypatch.setattr(decode, "decoding_bytes", lambda *_, **__: 0.3 * MAX_BYTES)
    inspect_dataset(read_dataset(folder, channels=3))
    assert 1 < most[0] <= 3


def test_the_memory_of_large_images_goes_back_to_the_system() -> None:
    # glibc maps blocks larger than 32 MB; of smaller ones it keeps some for each thread.
    assert Image.core.get_block_size() > 2**25


def test_a_header_is_read_from_a_bounded_number_of_bytes_and_calls() -> None:
    stream = HeaderStream(io.BytesIO(bytes(100_000)), limit_bytes=50_000)
    assert len(stream.read(10)) == 10
    assert stream.tell() == 10
    with pytest.raises(ImageError, match="too long"):
        stream.read()
    stream = HeaderStream(io.BytesIO(bytes(100_000)), limit_bytes=50_000)
    for _ in range(12):  # each call counts as 4096 extra bytes
        stream.read(1)
    with pytest.raises(ImageError, match="too long"):
        stream.read(1)
    stream = HeaderStream(io.BytesIO(bytes(100_000)), limit_bytes=50_000)
    stream.release()
    assert len(stream.read()) == 100_000


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("value", ["many", "0", "-5", "1e6", "10000000000", "٣"])
def test_a_limit_that_is_no_number_is_refused_on_one_line(value: str) -> None:
    found = python("import effnet.data.images.limits", EFFNET_MAX_PIXELS=value)
    assert found.stderr.splitlines()[-1].startswith(
        "effnet.errors.InputError: EFFNET_MAX_PIXELS must be a whole number of pixels from 1 to 1,000,000,000; got '"
    )


def test_the_limit_is_an_option_of_the_command_line(make_folder) -> None:
    folder = make_folder({f"{split}/{label}": 2 for split in ("train", "val", "test") for label in "ab"})
    code = "import sys; sys.argv[0] = 'effnet'; from effnet.cli.main import main; main()"
    found = python(code, "data", "inspect", str(folder), EFFNET_MAX_PIXELS="47")
    # No output of Pillow's own.
    assert found.stderr.count("\n") == 1
    assert "it must have at most 47 pixels, its header says 8 x 6; make it smaller, or set" in found.stderr
    assert found.stderr.rstrip().endswith("the environment variable EFFNET_MAX_PIXELS to 48")
    assert found.returncode == 2
    assert python(code, "data", "inspect", str(folder), EFFNET_MAX_PIXELS=" 48 ").returncode == 0
    found = python(code, "data", "inspect", str(folder), EFFNET_MAX_PIXELS="48k")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)


MEASURE = """
import sys
from effnet.data.images import pixels
from effnet.data.images.decode import decode_image
from effnet.data.images.opening import decoding_bytes, open_image, open_stream
from effnet.data.view.value_range import ValueRange
RANGE = ValueRange(low=0, high=65535)
pixels._PIECE_PIXELS = 2**16
def peak(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
decode_image(sys.argv[1], value_range=RANGE)
for path in sys.argv[1:]:
    with open_stream(path) as stream, open_image(stream) as image:
        needed = decoding_bytes(image, stream)
    for channels in (1, 3, 4):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = peak("VmRSS")
        decode_image(path, channels=channels, value_range=RANGE)
        print(path.rsplit("/")[-1], channels, needed, peak("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of memory is read from /proc")
def test_decoding_takes_no_more_memory_than_is_counted(tmp_path: Path, png_bytes) -> None:
    side = 1200
    grey = (np.add.outer(np.arange(side), np.arange(side)) // 16 % 256).astype(np.uint8)
    colour = Image.fromarray(np.stack([grey, grey.T, 255 - grey], axis=-1))
    palette = Image.fromarray(grey).convert("P")
    alpha = colour.copy()
    alpha.putalpha(Image.fromarray(grey))
    turned = Image.Exif()
    turned[0x0112] = 6
    fast = {"compress_level": 1}
    cases = {
        "rgb.jpg": (colour, {}),
        "turned.jpg": (colour, {"exif": turned}),
        "progressive.jpg": (colour, {"progressive": True, "subsampling": 0}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "grey.png": (Image.fromarray(grey), fast),
        "rgb.png": (colour, fast),
        "rgba.png": (alpha, fast),
        "la.png": (alpha.convert("LA"), fast),
        "palette.png": (palette, fast | {"transparency": bytes(range(256))}),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), fast),
        "palette.gif": (palette, {"transparency": 3}),
        "rgb.bmp": (colour, {}),
        "deep.pgm": (Image.fromarray(grey.astype(np.uint16) * 257), {}),
        "int.tif": (Image.fromarray(grey.astype(np.int32)), {}),
        "float.tif": (Image.fromarray(grey.astype(np.float32)), {"compression": "tiff_lzw"}),
        "strip.tif": (colour, {"compression": "tiff_lzw", "strip_size": side * side * 3}),
        "rgba.webp": (alpha, {"method": 0}),
        "rgb.jp2": (colour, {"quality_layers": [100]}),
        "rgba.avif": (alpha, {"speed": 10, "subsampling": "4:4:4"}),
    }
    paths = []
    for name, (image, options) in cases.items():
        if Image.registered_extensions().get(os.path.splitext(name)[1]) in Image.SAVE:
            image.save(tmp_path / name, **options)
            paths.append(str(tmp_path / name))
    (tmp_path / "colour.png").write_bytes(png_bytes(np.asarray(alpha).astype(np.uint16) * 257))
    paths.append(str(tmp_path / "colour.png"))
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(alpha).save(tmp_path / "rgba.heic", chroma=444, enc_params={"preset": "ultrafast"})
    paths.append(str(tmp_path / "rgba.heic"))
    np.save(tmp_path / "deep.npy", np.asfortranarray(np.asarray(colour).astype(np.uint16)))
    found = python(MEASURE, *paths)
    assert found.returncode == 0, found.stderr
    rows = [line.split() for line in found.stdout.splitlines()]
    assert len(rows) == 3 * len(paths)
    # Pieces, codec buffers, and memory kept by the allocator are not counted.
    over = [row for row in rows if float(row[3]) > float(row[2]) + 5e6]
    assert not over


def test_the_help_names_the_limit(run_cli) -> None:
    assert "EFFNET_MAX_PIXELS" in run_cli("--help").out


def test_no_limit_is_offered_that_could_not_be_set() -> None:
    with pytest.raises(ImageError, match=r"its header says 40000 x 30000; make it smaller$"):
        check_pixels(40_000, 30_000)
