"""Uploads: what is refused, and how it is told."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny_page import upload

UP = "../" * 12


def png(width=10, height=10):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def bomb(width, height):
    """A PNG of few bytes whose header claims many pixels."""
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "it is empty"),
        (b"no image at all", "its format is not known"),
        (png()[:40], "it is"),
        (b"\xff\xd8\xff\xe0" + bytes(300), "it is"),
        (b"II*\0" + b"\xff" * 300, "it is"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "its format is not known"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "its format"),
        (bomb(30_000, 30_000), "it has more than 100000000 pixels"),
        (bomb(2**31 - 1, 2**31 - 1), "it has more than 100000000 pixels"),
    ],
)
def test_uploads_that_are_no_images_are_told(client, encoded, reason):
    answer = upload(client, encoded)
    assert answer.status_code == 400
    assert f"The image a.png cannot be read: {reason}" in answer.text


def test_an_upload_that_is_too_large_is_told(client):
    answer = upload(client, bytes(400_000))
    assert answer.status_code == 413
    assert "An upload has at most 0.3 MB." in answer.text


def test_an_upload_may_be_nearly_as_large_as_is_said(client):
    file = io.BytesIO()
    Image.new("RGB", (310, 310), (10, 10, 10)).save(file, "BMP")  # 288,300 line feeds
    assert upload(client, file.getvalue(), "a.bmp").status_code == 303


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"image": "a text"},
        {"image": (io.BytesIO(b"x"), "")},
        {"picture": (io.BytesIO(b"x"), "a.png")},
    ],
)
def test_a_form_without_an_image_is_told(client, form):
    answer = client.post("/upload", data=form, content_type="multipart/form-data")
    assert answer.status_code == 400
    assert "No image was chosen." in answer.text


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"--x\r\n" * 1000, "multipart/form-data; boundary=x"),
        (b"\xff\x00" * 1000, "multipart/form-data"),
        (b"image=" + b"x" * 90_000, "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (
            b"".join(
                b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n' % part
                for part in range(500)
            )
            + b"--x--",
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_malformed_forms_are_refused(client, body, content_type):
    answer = client.post("/upload", data=body, content_type=content_type)
    assert answer.status_code in (400, 413)


def test_another_site_cannot_upload(client):
    assert upload(client, png()).status_code == 303
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        answer = upload(client, png(), **headers)
        assert answer.status_code == 403
        assert "must not upload" in answer.text


def test_an_upload_is_never_on_the_disk_under_its_name(client, served_index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    before = set(served_index.folder.parent.rglob("*"))
    assert upload(client, file.getvalue(), f"{UP}../evil.png").status_code == 303
    assert not list(tmp_path.rglob("*"))
    assert set(served_index.folder.parent.rglob("*")) == before
