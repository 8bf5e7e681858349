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


@pytest.fixture
def engine(served_index):
    return Engine(served_index, 5)


@pytest.fixture(scope="module")
def expected(served_index):
    def expected(query, k):
        (found,) = searching.search(served_index, served_index.model.encode_texts([query]), k)
        return [one.row for one in found], [round(one.score, 3) for one in found]

    return expected


def test_the_start_page_shows_images_and_words_to_try(client, served_index):
    page = client.get("/").text
    assert f"{len(served_index.files)} images to search" in page
    assert rows_of(page) == list(range(len(served_index.files)))
    words = re.findall(r'href="/search\?q=(\w+)"', page)
    assert words
    assert set(words) <= set(served_index.model.concepts.words)


def test_a_query_lists_the_nearest_images(client, expected):
    page = client.get("/search?q=a harbour near two silos").text
    rows, scores = expected("a harbour near two silos", 5)
    assert rows_of(page) == rows
    np.testing.assert_allclose(scores_of(page), scores, atol=1.1e-3)
    assert "<q>a harbour near two silos</q>" in page


def test_more_can_be_shown(client, expected):
    page = client.get("/search?q=a harbour").text
    address = html.unescape(re.search(r'class="button" href="(/search[^"]*)"', page)[1])
    more = client.get(address).text
    assert rows_of(more) == expected("a harbour", 8)[0]
    assert 'href="/search?' not in more.split("</header>")[1]


@pytest.mark.parametrize(
    ("show", "count"), [("3", 3), ("0", 1), ("-5", 1), ("999999", 8), ("x", 5), ("9" * 5000, 5)]
)
def test_how_many_are_shown_is_bounded(client, show, count):
    assert len(rows_of(client.get(f"/search?q=pond&show={show}").text)) == count


@pytest.mark.parametrize(
    ("query", "note"),
    [
        ("a harbour", []),
        ("a zorg near the harbour", ["The model does not know: zorg, near."]),
        (
            "zorg <b>",
            [
                "The model does not know: zorg, b. It knows no word of this query, so the order of "
                "the images means nothing."
            ],
        ),
    ],
)
def test_what_the_model_does_not_know_of_a_query_is_told(client, query, note):
    page = client.get("/search", query_string={"q": query}).text
    assert re.findall(r'class="note">(.*?)</p>', page) == note


def test_the_pages_say_what_scores_mean_and_show_names_in_full(client, served_index):
    for address in ("/search?q=a harbour", "/image/4"):
        page = client.get(address).text
        assert searching.SCORES_NOTE in page
        titles = re.findall(r'class="card"[^>]*title="([^"]*)"', page)
        assert titles == [
            html.escape(printable(served_index.files[row]), quote=False) for row in rows_of(page)
        ]


def test_an_image_shows_its_concepts_and_those_like_it(client, served_index, engine):
    page = client.get("/image/4").text
    assert served_index.files[4] in page
    assert list(concepts_of(page)) == [
        word for word, _ in engine.concepts_seen(served_index.concepts[4], 10)
    ]
    (found,) = searching.search(served_index, served_index.embeddings[4:5], 6)
    assert rows_of(page) == [one.row for one in found if one.row != 4][:5]


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
    for address in ("/upload/AAAAAAAAAAAAAAAAAAAAAA", "/upload/AAAAAAAAAAAAAAAAAAAAAA/view.jpg"):
        answer = client.get(address)
        assert answer.status_code == 404
        assert "This upload is not kept any more" in answer.text


def test_an_image_that_is_gone_shows_as_such(client, served_index, tmp_path):
    path, aside = served_index.path_of(3), tmp_path / "aside"
    assert client.get("/image/3/thumbnail.jpg").status_code == 200
    content = path.read_bytes()
    path.rename(aside)
    try:
        picture = client.get("/image/3/thumbnail.jpg")
        assert (picture.status_code, picture.mimetype) == (404, "image/svg+xml")
        page = client.get("/image/3")
        assert page.status_code == 200
        assert "The file is not there any more" in page.text
        path.write_bytes(content[:50])
        assert client.get("/image/3/view.jpg").status_code == 404
    finally:
        aside.rename(path)
    assert client.get("/image/3/view.jpg").status_code == 200


def test_nothing_is_compiled_after_the_start(client, served_index, caplog):
    caplog.set_level("WARNING", logger="jax")
    with jax.log_compiles():
        client.get("/search?q=" + "pond " * 20)
        client.get("/search?q=pond&show=8")
        client.get("/image/1")
        upload(client, served_index.path_of(0).read_bytes())
    assert not [record for record in caplog.records if "ompil" in record.message]


def test_concepts_that_tell_images_apart(served_index, engine):
    words = served_index.model.concepts.words
    concepts = np.asarray(served_index.concepts[1:4], np.float32)
    best = (concepts - concepts.mean(axis=0)).argmax(axis=1)
    assert engine.distinctive_words([1, 2, 3]) == list(dict.fromkeys(words[one] for one in best))


def test_only_concepts_clearly_above_the_average_image_are_shown(served_index):
    words, means = served_index.model.concepts.words, np.full(CONCEPTS, 0.5)
    means[2] = 0.01
    index = dataclasses.replace(served_index, concepts=np.stack([means, means]))
    probabilities = means + 0.01  # as all images have them
    probabilities[[0, 1, 2]] = 0.6, 0.9, 0.2
    seen = Engine(index, 5).concepts_seen(probabilities, 10)
    assert [(word, round(probability, 3)) for word, probability in seen] == [
        (words[1], 0.9),
        (words[0], 0.6),
        (words[2], 0.2),
    ]
    assert Engine(index, 5).concepts_seen(means + 0.01, 10) == []
