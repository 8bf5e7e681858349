"""Uploads, what is refused of them, and the cache that pictures and uploads are kept in."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny_page import upload

from kamcl_jax.serving.pictures import LeastRecentlyUsed

PART = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
BLACK = np.zeros((10, 10, 3), np.uint8)


def encoded(pixels=BLACK, file_format="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def test_an_upload_may_be_nearly_as_large_as_is_said_and_no_larger(client):
    line_feeds = encoded(np.full((310, 310, 3), 10, np.uint8), "BMP")  # 288,300 of them
    assert upload(client, line_feeds).status_code == 303
    answer = upload(client, bytes(400_000))
    assert answer.status_code == 413
    assert "An upload has at most 0.3 MB." in answer.text


UNREADABLE = "The image a.png cannot be read: "


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({}, "No image was chosen."),
        ({"image": (io.BytesIO(b"x"), "")}, "No image was chosen."),
        ({"image": (io.BytesIO(b""), "a.png")}, f"{UNREADABLE}it is empty"),
        ({"image": (io.BytesIO(b"<svg>"), "a.png")}, f"{UNREADABLE}its format is not known"),
        (PART * 500 + b"--x--", ""),
    ],
)
def test_a_form_without_an_image_is_refused(client, form, sentence):
    kind = "multipart/form-data; boundary=x" if isinstance(form, bytes) else "multipart/form-data"
    answer = client.post("/upload", data=form, content_type=kind)
    assert answer.status_code == (400 if sentence else 413)
    assert sentence in answer.text


def test_another_site_cannot_upload(client):
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        answer = upload(client, encoded(), **headers)
        assert answer.status_code == 403
        assert "must not upload" in answer.text


def test_an_upload_is_never_on_the_disk(client, served_index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(served_index.folder.parent.rglob("*"))
    pixels = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    assert upload(client, encoded(pixels), f"{'../' * 13}evil.png").status_code == 303
    assert not list(tmp_path.rglob("*"))
    assert set(served_index.folder.parent.rglob("*")) == before


def test_the_cache_drops_what_was_used_longest_ago_where_there_is_no_room():
    cache = LeastRecentlyUsed[str](6, len)
    cache.put("a", "1234")
    cache.put("b", "12")
    assert cache.get("a") == "1234"
    cache.put("c", "12")
    assert [cache.get(key) for key in "abc"] == ["1234", None, "12"]
    cache.put("d", "1234567")  # is too large, and drops nothing else
    assert [cache.get(key) for key in "acd"] == ["1234", "12", None]
