"""What a client must not do: each has a limit, and an answer that says so."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from served import photo

from effnet.errors import InputError
from effnet.serving.http.body import BodyRoom, image_in
from effnet.serving.http.errors import HttpError
from effnet.serving.settings import Settings, read_keys
from effnet.serving.versions.version import read_sources

KEY = "k" * 20


def png_claiming(width: int, height: int, *, data: bytes = b"") -> bytes:
    """Return a PNG file whose header says another size than its few pixels have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data or zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    """Return a JPEG file whose frame says another size."""
    data = bytearray(photo(form="JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def large_text(size: int) -> bytes:
    """Return a PNG file with a compressed text of `size` bytes."""
    whole, text = photo(), b"note\0\0" + zlib.compress(b"x" * size)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return whole[:33] + chunk + whole[33:]


def gif() -> bytes:
    return photo(form="GIF")


HOSTILE = {
    "empty": (b"", 400),
    "text": (b"hello", 415),
    "a GIF": (gif(), 415),
    "a TIFF": (photo(form="TIFF"), 415),
    "a BMP": (photo(form="BMP"), 415),
    "an array": (b"\x93NUMPY" + bytes(100), 415),
    "a bomb of 10 gigapixels": (png_claiming(100_000, 100_000), 413),
    "one more pixel than allowed": (png_claiming(5_001, 5_000), 413),
    "a JPEG of 65,000 x 65,000": (jpeg_claiming(65_000, 65_000), 413),
    "a WebP without data": (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(8), 422),
    "a RIFF of sound": (b"RIFF\x10\0\0\0WAVEfmt " + bytes(8), 415),
    "half a JPEG": (photo(form="JPEG", size=(300, 200))[:3000], 422),
    "a PNG without its pixels": (photo()[:60], 422),
    "only the start of a JPEG": (b"\xff\xd8\xff", 422),
    "a bomb of zlib": (png_claiming(4_000, 4_000, data=zlib.compress(bytes(100))), 422),
    "a text of 80 MB": (large_text(80_000_000), 422),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_refused_and_the_next_is_answered(serve_here, bundles, name):
    served, (data, status) = serve_here(str(bundles / "tiny")), HOSTILE[name]
    response = served.client.post("/predict", content=data)
    assert response.status_code == status, response.text
    assert "must" in response.json()["error"]
    assert served.predict(photo())["predictions"]


def test_uncommon_images_are_answered(serve_here, bundles):
    served = serve_here(str(bundles / "tiny"))
    for data in (photo(form="JPEG", mode="CMYK"), photo(mode="RGBA"), photo(mode="P"), photo(size=(1, 65_000))):
        assert served.predict(data)["predictions"]
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, format="WEBP", save_all=True, append_images=frames[1:])
    assert served.predict(file.getvalue())["predictions"]


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_never_cause_an_error_of_the_server(serve_here, bundles, seed):
    served, rng = serve_here(str(bundles / "tiny")), np.random.default_rng(seed)
    originals = [photo(form=form) for form in ("PNG", "JPEG", "WEBP")]
    for turn in range(30):
        data = bytearray(originals[turn % 3])
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        cut = rng.integers(1, len(data) + 1) if turn % 4 == 0 else len(data)
        assert served.client.post("/predict", content=bytes(data[:cut])).status_code in (200, 413, 415, 422)
    assert not served.logged("failed")


def test_a_long_body_is_refused_by_its_header_or_while_it_comes(serve_here, bundles):
    client = serve_here(str(bundles / "tiny"), max_body_mb=0.01).client
    response = client.post("/predict", content=bytes(20_000))
    assert response.status_code == 413

    def pieces():
        for _ in range(30):
            yield bytes(1_000)

    assert client.post("/predict", content=pieces()).status_code == 413


def test_a_compressed_body_is_refused(serve_here, bundles):
    client = serve_here(str(bundles / "tiny")).client
    response = client.post("/predict", content=zlib.compress(photo()), headers={"content-encoding": "gzip"})
    assert response.status_code == 415


def test_bodies_share_one_room():
    room = BodyRoom(100)
    room.take(60)
    with pytest.raises(HttpError, match="too many come at once") as error:
        room.take(50)
    assert error.value.status == 503
    room.give(60)
    room.take(100)


def form(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nDATA'
FIELD = b'Content-Disposition: form-data; name="note"\r\n\r\nhello'


def test_a_form_holds_one_file():
    kind = 'multipart/form-data; boundary="B"'
    assert image_in(form(FILE), kind) == b"DATA"
    assert image_in(form(FIELD, FILE, FIELD), kind) == b"DATA"
    binary = FILE.replace(b"DATA", b"\r\n--BA\r\n\r\n")
    assert image_in(form(binary).replace(b"--BA", b"-BA"), kind) == b"\r\n-BA\r\n\r\n"


@pytest.mark.parametrize(
    "data, kind, message",
    [
        (form(FIELD), "multipart/form-data; boundary=B", "holds 0"),
        (form(FILE, FILE), "multipart/form-data; boundary=B", "holds 2"),
        (form(FILE, end=b""), "multipart/form-data; boundary=B", "must end with its boundary"),
        (form(FILE), "multipart/form-data", "must name its boundary"),
        (form(FILE), f"multipart/form-data; boundary={'B' * 71}", "must name its boundary"),
        (form(*[FIELD] * 40), "multipart/form-data; boundary=B", "at most 16 parts"),
        (form(b"no blank line"), "multipart/form-data; boundary=B", "must have a header"),
        (form(b"X: " + bytes(9000) + b"\r\n\r\nDATA"), "multipart/form-data; boundary=B", "must have a header"),
        (b"", "multipart/form-data; boundary=B", "must end with its boundary"),
        (b"{}", "application/json", "content-type must be"),
    ],
)
def test_a_damaged_form_is_refused(data, kind, message):
    with pytest.raises(HttpError, match=message) as error:
        image_in(data, kind)
    assert error.value.status in (400, 415)


def test_a_key_is_needed_but_for_probes(serve_here, bundles):
    client = serve_here(str(bundles / "tiny"), keys=(KEY.encode(), b"other" * 5)).client
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}, {"authorization": KEY}):
        response = client.post("/predict", content=photo(), headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert KEY not in response.text
    assert client.get("/metrics").status_code == 401
    assert client.get("/v2/health/ready").status_code == client.get("/health").status_code == 200
    right = {"authorization": f"Bearer {KEY}"}
    assert client.post("/predict", content=photo(), headers=right).status_code == 200
    assert 'effnet_rejected_total{reason="key"} 5.0' in client.get("/metrics", headers=right).text


def test_keys_are_read_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# of the camera\n{KEY}\n\n  {KEY}2  \n")
    assert read_keys(str(path)) == (KEY.encode(), f"{KEY}2".encode())
    for text, message in (("", "has none"), ("short\n", "at least 16 characters")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_keys(str(path))
    with pytest.raises(InputError, match="can be read"):
        read_keys(str(tmp_path / "absent"))


def test_a_full_server_refuses_before_it_reads_a_body(serve_here, bundles):
    served = serve_here(str(bundles / "tiny"))
    served.state.workers.close()
    sent = []

    def pieces():
        sent.append(1)
        yield photo()

    response = served.client.post("/predict", content=pieces())
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert 'effnet_rejected_total{reason="draining"} 1.0' in served.client.get("/metrics").text


def test_other_methods_and_paths_are_answered_in_json(serve_here, bundles):
    client = serve_here(str(bundles / "tiny")).client
    assert client.get("/predict").status_code == 405
    assert client.get("/predict").headers["allow"] == "POST"
    assert client.options("/predict").status_code == 405
    assert client.head("/health").status_code == 200
    response = client.post("/predct", content=photo())
    assert response.status_code == 404
    assert "did you mean '/predict'" in response.json()["error"]


@pytest.mark.parametrize("options", [{"port": 70_000}, {"queue": 0}, {"max_batch": 0}, {"deadline_ms": float("nan")}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="must lie in"):
        Settings(**options)


@pytest.mark.parametrize(
    "words", [[], ["a/b=x"], ["=x"], ["a?=x"], ["a=x", "a=y"], ["a:1=x", "a:1=y"], ["é" * 101 + "=x"]]
)
def test_models_need_names_of_their_own(words):
    with pytest.raises(InputError):
        read_sources(words)


def test_a_name_may_be_unicode():
    (source,) = read_sources(["Äpfel und Birnen=x"])
    assert source.name == "Äpfel und Birnen"
