"""What visitors must not be able to do."""

import html
import re
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
def test_no_path_leads_out(client, served_index, address):
    secret = served_index.images_root.parent / "secret.txt"
    for write in (str, quote, lambda path: quote(path, safe="")):
        for path in ("../secret.txt", str(secret)[1:], UP + str(secret)[1:], f"{UP}etc/passwd"):
            answer = client.get(address.format(write(path)))
            assert answer.status_code == 404
            assert secret.read_bytes() not in answer.data
            assert b"root:" not in answer.data


@pytest.mark.parametrize("address", ["/image/{}", "/image/{}/view.jpg", "/image/{}/thumbnail.jpg"])
def test_rows_that_the_index_has_not(client, served_index, address):
    assert len(served_index.files) == 14
    rows = ["14", "999999999", "9" * 5000, "-1", "1.0", "1e1", "0x1", "%20", "٣", "NaN", "0;0"]
    for row in rows:
        assert client.get(address.format(row)).status_code == 404


@pytest.mark.parametrize(
    ("query", "statuses", "sentence"),
    [
        ("x" * 101, {400}, "A query has at most 100 characters; this one has 101."),
        ("x+" * 21, {400}, "A query has at most 20 words and punctuation marks."),
        *((blank, {302}, "") for blank in ("", "+++", "%0A%09")),
        *((odd, {200, 400}, "") for odd in ("%00", ".", "%E2%80%AE%E2%80%8B", "%F0%9F%98%80")),
        ("%ff%fe%ed%a0%80", {200}, ""),  # bytes that are no text
    ],
)
def test_any_query_is_answered_or_refused_with_a_sentence(client, query, statuses, sentence):
    answer = client.get(f"/search?q={query}")
    assert answer.status_code in statuses
    assert sentence in answer.text


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


@pytest.mark.parametrize("address", [*ADDRESSES, "/static/page.css", "/nothing"])
def test_a_host_name_of_elsewhere_is_refused(client, address):
    answer = client.get(address, headers={"Host": "127.0.0.1.evil.example:8000"})
    assert answer.status_code == 403
    assert "This address is not of this machine." in answer.text


def test_every_answer_forbids_what_is_not_needed(client):
    addresses = [*ADDRESSES, "/upload", "/nothing", "/image/99", "/static/page.js"]
    for answer in map(client.get, addresses):
        assert guards.RESPONSE_HEADERS.items() <= dict(answer.headers).items()


@pytest.mark.parametrize("address", ["/", "/search?q=pond", "/image/0", "/nothing"])
def test_pages_need_nothing_from_elsewhere_and_keep_to_their_policy(client, address):
    tags = "".join(re.findall("<[a-z][^>]*>", client.get(address).text))
    forbidden = r"<style|<script(?! src=)|\s(style|on\w+|srcset|data|poster)="
    assert not re.search(forbidden, re.sub('="[^"]*"', "=", tags))
    links = set(re.findall(r'\s(?:src|href|action)="([^"]*)"', tags))
    assert {"/", "/search", "/static/page.css"} <= links
    for link in links - {"/upload"}:
        assert re.match(r"/(?!/)", link)
        answer = client.get(html.unescape(link))
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
