"""A served bundle with a score: it decides what is unknown, and is an output of the inference protocol."""

import numpy as np
import pytest
from bundles import add_score, make_bundle
from served import photo
from test_protocol import images_of, infer, tensor, values_of

from effnet.runtimes.predictor import load
from effnet.tasks.known import KnownScore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle to which every image is unknown by its energy, none by the largest probability."""
    folder = make_bundle(tmp_path_factory.mktemp("known") / "model", threshold=0.0)
    return add_score(folder, KnownScore(method="energy", threshold=1e6))


def test_its_score_decides_unless_a_probability_is_given(serve_here, folder):
    served = serve_here(str(folder))
    assert served.predict(photo())["known"] is False
    assert served.predict(photo(), threshold=0.01)["known"] is True
    assert served.predict(photo(), threshold=1.0)["known"] is False


def test_the_protocol_returns_probabilities_and_the_score(serve_here, folder):
    served, model = serve_here(str(folder)), load(folder)
    about = served.client.get("/v2/models/model").json()
    assert [(output["name"], output["shape"]) for output in about["outputs"]] == [
        ("probabilities", [-1, 10]),
        ("known", [-1, 1]),
    ]
    images = images_of(model, 3)
    response = infer(served, {"inputs": [tensor(images, data=images.ravel().tolist())]}, model="model")
    np.testing.assert_allclose(values_of(response), model.outputs(images), atol=1e-6)
    np.testing.assert_allclose(values_of(response, 1)[:, 0], model.scores(images), rtol=1e-5)
