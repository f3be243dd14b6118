"""Headers of .npy files are parsed by one thread at a time: Python's parser fails otherwise, now and then."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from effnet.data.images.npy import npy_header


def test_headers_are_parsed_one_at_a_time(monkeypatch):
    stream, inside, most = io.BytesIO(), [], []
    np.save(stream, np.zeros((4, 5, 3), np.uint8))
    parse = np.lib.format.read_array_header_1_0

    def slowly(file):
        inside.append(threading.get_ident())
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return parse(file)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", slowly)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: npy_header(io.BytesIO(stream.getvalue())), range(40)))
    assert max(most) == 1
    assert set(found) == {((4, 5, 3), "uint8")}
