"""What the pages show."""

import dataclasses
import html
import io
import re

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_model import CONCEPTS
from tiny_page import upload

from kamcl_jax.search import searching
from kamcl_jax.search.index import printable
from kamcl_jax.serving.engine import Engine


def rows_of(page):
    return [int(row) for row in re.findall(r'class="card" href="/image/(\d+)"', page)]


def scores_of(page):
    return [float(score) for score in re.findall(r"similarity</span> (-?\d\.\d+)", page)]


def concepts_of(page):
    words = re.findall(r'<li>\s*<a href="/search[^"]*">([^<]*)</a>\s*<svg', page)
    return dict(zip(words, re.findall(r"<span>(\d+) %</span>", page), strict=True))


def nearest(index, query, k):
    (found,) = searching.search(index, index.model.encode_texts([query]), k)
    return [one.row for one in found], [one.score for one in found]


def test_the_start_page_shows_images_and_words_to_try(client, served_index):
    page = client.get("/").text
    assert f"{len(served_index.files)} images to search" in page
    assert rows_of(page) == list(range(len(served_index.files)))
    words = re.findall(r'href="/search\?q=(\w+)"', page)
    assert words
    assert set(words) <= set(served_index.model.concepts.words)


def titles_of(page):
    return list(map(html.unescape, re.findall(r'class="card"[^>]*title="([^"]*)"', page)))


def names_of(index, rows):
    return [printable(index.files[row]) for row in rows]


def test_a_query_lists_the_nearest_images_and_more_of_them(client, served_index):
    query = "a harbour near two silos"
    page = client.get("/search", query_string={"q": query}).text
    rows, scores = nearest(served_index, query, 8)
    assert rows_of(page) == rows[:5]
    assert titles_of(page) == names_of(served_index, rows[:5])
    np.testing.assert_allclose(scores_of(page), scores[:5], atol=1.1e-3)
    assert f"<q>{query}</q>" in page
    notes = searching.query_notes(served_index.model, query)
    assert notes
    assert re.findall(r'class="note">(.*?)</p>', page) == [" ".join(notes)]
    assert searching.SCORES_NOTE in page
    more = client.get(html.unescape(re.search(r'class="button" href="([^"]*)"', page)[1])).text
    assert rows_of(more) == rows
    assert 'href="/search?' not in more.split("</header>")[1]


@pytest.mark.parametrize(
    ("show", "count"), [("3", 3), ("0", 1), ("-5", 1), ("999999", 8), ("x", 5), ("9" * 5000, 5)]
)
def test_how_many_are_shown_is_bounded(client, show, count):
    assert len(rows_of(client.get(f"/search?q=pond&show={show}").text)) == count


def test_an_image_shows_its_concepts_and_those_like_it(client, served_index):
    page = client.get("/image/4").text
    assert served_index.files[4] in page
    assert searching.SCORES_NOTE in page
    seen = Engine(served_index, 5).concepts_seen(served_index.concepts[4], 10)
    assert list(concepts_of(page)) == [word for word, _ in seen]
    (found,) = searching.search(served_index, served_index.embeddings[4:5], 6)
    rows = [one.row for one in found if one.row != 4][:5]
    assert rows_of(page) == rows
    assert titles_of(page) == names_of(served_index, rows)


def test_a_picture_is_a_jpeg_that_browsers_need_not_load_twice(client, served_index):
    row = served_index.files.index("deep.tif")
    answer = client.get(f"/image/{row}/view.jpg")
    picture = Image.open(io.BytesIO(answer.data))
    assert (picture.format, picture.size) == ("JPEG", (60, 40))
    left, middle, right = np.asarray(picture)[20, [0, 30, -1]].mean(axis=1)
    assert left < 10 < 120 < middle < 135 < 245 < right
    again = client.get(f"/image/{row}/view.jpg", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    other = client.get(f"/image/{row}/thumbnail.jpg")
    assert other.headers["ETag"] != answer.headers["ETag"]


@pytest.mark.parametrize("name", ["more/03.png", "deep.tif"])
def test_an_uploaded_image_of_the_index_finds_itself(client, served_index, name):
    row = served_index.files.index(name)
    answer = upload(client, served_index.path_of(row).read_bytes())
    assert answer.status_code == 303
    for _ in range(2):  # reloading is no second upload
        page = client.get(answer.location).text
        assert rows_of(page)[0] == row
        assert scores_of(page)[0] == 1
        assert concepts_of(page) == concepts_of(client.get(f"/image/{row}").text)
    picture = Image.open(io.BytesIO(client.get(f"{answer.location}/view.jpg").data))
    assert picture.size == served_index.read_image(row).size


def test_an_upload_that_is_not_kept_any_more_is_told(client):
    for address in ("/upload/AAAAAAAA", "/upload/AAAAAAAA/view.jpg"):
        answer = client.get(address)
        assert answer.status_code == 404
        assert "This upload is not kept any more" in answer.text


def test_an_image_that_is_gone_shows_as_such(client, served_index):
    path = served_index.path_of(3)
    assert client.get("/image/3/thumbnail.jpg").status_code == 200
    content = path.read_bytes()
    path.unlink()
    try:
        picture = client.get("/image/3/thumbnail.jpg")
        assert (picture.status_code, picture.mimetype) == (404, "image/svg+xml")
        assert "The file is not there any more" in client.get("/image/3").text
        path.write_bytes(content[:50])
        assert client.get("/image/3/view.jpg").status_code == 404
    finally:
        path.write_bytes(content)
    assert client.get("/image/3/view.jpg").status_code == 200


def test_nothing_is_compiled_after_the_start(client, served_index, caplog):
    caplog.set_level("WARNING", logger="jax")
    with jax.log_compiles():
        client.get("/search?q=" + "pond " * 20)
        client.get("/search?q=pond&show=8")
        client.get("/image/1")
        upload(client, served_index.path_of(0).read_bytes())
    assert not [record for record in caplog.records if "ompil" in record.message]


def test_only_concepts_clearly_above_the_average_image_are_shown(served_index):
    words, means = served_index.model.concepts.words, np.full(CONCEPTS, 0.5)
    means[2] = 0.01
    engine = Engine(dataclasses.replace(served_index, concepts=np.stack([means, means])), 5)
    probabilities = means + 0.01  # as all images have them
    assert engine.concepts_seen(probabilities, 10) == []
    probabilities[[0, 1, 2]] = 0.6, 0.9, 0.2
    seen = [word for word, _ in engine.concepts_seen(probabilities, 10)]
    assert seen == [words[1], words[0], words[2]]
