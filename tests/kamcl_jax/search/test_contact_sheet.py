import numpy as np
import pytest
from PIL import Image
from tiny_index import noise

from kamcl_jax.search import contact_sheet
from kamcl_jax.search.contact_sheet import FoundImage, Query


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query("a sentence"), [FoundImage(noise(1), "$a_b$ ^ \\frac.png", 0.5)] * 7),
        (Query("港口 " * 400), [FoundImage(None, "gone" * 100, -0.5)]),
        (
            Query("a.png", noise(2, 300, 20), [("a caption $1", 0.25)] * 20),
            [FoundImage(noise(3), "\n", 1)],
        ),
        (Query("none"), []),
    ],
)
def test_a_contact_sheet_is_drawn_of_anything(tmp_path, query, found, recwarn):
    contact_sheet.draw(tmp_path / "sheet.png", query, found)
    assert not recwarn.list
    with Image.open(tmp_path / "sheet.png") as sheet:
        width, height = sheet.size
    assert width > 1000
    rows = -(-len(found) // contact_sheet.COLUMNS)
    assert height > 200 * (rows + (query.image is not None))


def test_an_image_is_drawn_as_sharp_as_its_file(tmp_path):
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = stripes[:, 3::8] = 255
    image = FoundImage(Image.fromarray(stripes), "stripes.png", 1.0)
    contact_sheet.draw(tmp_path / "sheet.png", Query("stripes"), [image])
    with Image.open(tmp_path / "sheet.png") as sheet:
        row = np.asarray(sheet.convert("L"))[120, 40:200]
    assert row.std() > 60  # a model's small input would show them as grey
