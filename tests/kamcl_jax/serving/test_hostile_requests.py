"""What visitors must not be able to do."""

import html
import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from tiny_page import upload

from kamcl_jax.search import searching
from kamcl_jax.serving import guards

UP = "../" * 12
ELSEWHERE = re.compile(r"https?:|@import|url\(")
ADDRESSES = ("/", "/search?q=pond", "/image/0", "/image/0/view.jpg", "/image/0/thumbnail.jpg")


@pytest.mark.parametrize(
    "address",
    [
        *("/{}", "/static/{}", "/image/{}", "/image/0/{}", "/image/{}/view.jpg"),
        *("/image/0/../{}/view.jpg", "/upload/{}", "/upload/{}/view.jpg"),
    ],
)
@pytest.mark.parametrize("write", [str, quote, lambda path: quote(path, safe="")])
def test_no_path_leads_out(client, served_index, address, write):
    secret = served_index.images_root.parent / "secret.txt"
    for path in ("../secret.txt", str(secret)[1:], UP + str(secret)[1:], f"{UP}etc/passwd"):
        answer = client.get(address.format(write(path)))
        assert answer.status_code == 404
        assert secret.read_bytes() not in answer.data
        assert b"root:" not in answer.data


@pytest.mark.parametrize(
    "row",
    ["14", "999999999", "9" * 5000, "-1", "1.0", "1e1", "0x1", "%20", "٣", "NaN", "0;0", "%00"],
)
@pytest.mark.parametrize("address", ["/image/{}", "/image/{}/view.jpg", "/image/{}/thumbnail.jpg"])
def test_rows_that_the_index_has_not(client, served_index, address, row):
    assert len(served_index.files) == 14
    assert client.get(address.format(row)).status_code == 404


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("x" * 101, "A query has at most 100 characters; this one has 101."),
        ("x " * 21, "A query has at most 20 words and punctuation marks."),
    ],
)
def test_queries_that_are_too_long_are_refused(client, query, sentence):
    answer = client.get("/search", query_string={"q": query})
    assert answer.status_code == 400
    assert sentence in answer.text


@pytest.mark.parametrize(
    ("query", "statuses"),
    [
        *((blank, {302}) for blank in ("", "+++", "%0A%09")),
        *((odd, {200, 400}) for odd in ("%00", ".", "%E2%80%AE%E2%80%8B", "%F0%9F%98%80", "%25FF")),
        ("%ff%fe%ed%a0%80", {200}),  # bytes that are no text
    ],
)
def test_anything_is_a_query(client, query, statuses):
    assert client.get(f"/search?q={query}").status_code in statuses


def test_a_query_is_shown_as_text(client):
    attack = '"><script>alert(1)</script>{{7*7}}'
    page = client.get("/search", query_string={"q": attack}).text
    assert "<script>alert" not in page
    assert re.findall("<q>(.*?)</q>", page) == [html.escape(attack).replace("&quot;", "&#34;")]


def test_a_name_of_a_file_is_shown_as_text(client, served_index):
    row = next(row for row, name in enumerate(served_index.files) if "onerror" in name)
    uploaded = upload(
        client, served_index.path_of(row).read_bytes(), served_index.files[row]
    ).location
    for page in (client.get("/"), client.get(f"/image/{row}"), client.get(uploaded)):
        assert page.status_code == 200
        assert "<img src=x" not in page.text
        assert "&lt;img src=x onerror=alert(1)&gt;" in page.text
        assert "{{7*7}}.png" in page.text
        assert "\u202e" not in page.text
    assert client.get(f"/image/{row}/view.jpg").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
@pytest.mark.parametrize("address", [*ADDRESSES, "/static/page.css", "/nothing"])
def test_a_host_name_of_elsewhere_is_refused(client, host, address):
    answer = client.get(address, headers={"Host": host})
    assert answer.status_code == 403
    assert "This address is not of this machine." in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_pages_are_only_read(client, method, address):
    answer = client.open(address, method=method)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


def test_every_answer_forbids_what_is_not_needed(client):
    addresses = [*ADDRESSES, "/upload", "/nothing", "/image/99", "/static/page.js"]
    for answer in map(client.get, addresses):
        assert guards.RESPONSE_HEADERS.items() <= dict(answer.headers).items()


class Tags(HTMLParser):
    """The tags of a page and their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize("address", ["/", "/search?q=pond", "/image/0", "/nothing"])
def test_pages_need_nothing_from_elsewhere_and_keep_to_their_policy(client, address):
    links = set()
    for tag, attributes in Tags(client.get(address).text).found:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        links |= {attributes[name] for name in {"src", "href", "action"} & attributes.keys()}
        assert not {"srcset", "data", "poster"} & attributes.keys()
    assert {"/", "/search", "/static/page.css"} <= links
    for link in links - {"/upload"}:
        assert re.match(r"/(?!/)", link)
        answer = client.get(link)
        assert answer.status_code in (200, 302)
        assert link[-3:] not in ("css", ".js") or not ELSEWHERE.search(answer.text)


def test_a_bug_is_told_without_its_details(page_app, client, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("a detail of the program")

    monkeypatch.setattr(searching, "search", fail)
    monkeypatch.setitem(page_app.config, "PROPAGATE_EXCEPTIONS", False)
    answer = client.get("/search?q=pond")
    assert answer.status_code == 500
    assert "a detail of the program" not in answer.text
    assert guards.RESPONSE_HEADERS.items() <= dict(answer.headers).items()
    assert "RuntimeError: a detail of the program" in caplog.text
