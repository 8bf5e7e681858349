"""The search page over a small index, made once for all of its tests."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny_index import fill, noise

from kamcl_jax.search import image_index, indexing
from kamcl_jax.serving.app import make_app
from kamcl_jax.serving.limits import Limits

HOSTILE_NAME = "<img src=x onerror=alert(1)>&\"'$_\u202e\n{{7*7}}.png"
LIMITS = Limits(
    upload_bytes=300_000, query_characters=100, query_tokens=20, results=5, most_results=8
)


@pytest.fixture(scope="session")
def served_index(tiny_model, tmp_path_factory) -> image_index.ImageIndex:
    """Noise, beside a file that is none of the images; a name is an attack, a file is 16-bit."""
    folder = tmp_path_factory.mktemp("served")
    fill(folder / "images")
    noise(90).save(folder / "images" / HOSTILE_NAME)
    deep = np.tile(np.linspace(0, 2**16 - 1, 60).astype(np.uint16), (40, 1))
    Image.fromarray(deep).save(folder / "images" / "deep.tif")
    (folder / "secret.txt").write_text("a secret beside the images")
    indexing.index_images(tiny_model, folder / "images", folder / "index")
    return image_index.open_index(folder / "index")


@pytest.fixture(scope="session")
def page_app(served_index):
    return make_app(served_index, LIMITS, only_this_machine=True)


@pytest.fixture
def client(page_app):
    return page_app.test_client()


def upload(client, encoded, name="a.png", **headers):
    """Sends a file as the page's form does."""
    data = {"image": (io.BytesIO(encoded), name)}
    return client.post("/upload", data=data, headers=headers)
