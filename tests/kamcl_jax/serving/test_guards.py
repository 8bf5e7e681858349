import pytest

from kamcl_jax.serving import guards

EVIL = "evil.example"
HERE = {"Host": "localhost:80"}


def test_which_host_headers_name_this_machine():
    ours = ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.0.0.1", "127.8.9.1", "[::1]:80"]
    others = ["", ":8000", "[::1", EVIL, f"{EVIL}:8000", "0.0.0.0:8000", "192.168.0.7"]
    others += [f"127.0.0.1.{EVIL}", f"localhost.{EVIL}", f"{EVIL}#127.0.0.1", f"{EVIL}/localhost"]
    assert [host for host in ours + others if guards.names_this_machine(host)] == ours


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:80"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://localhost:80", **HERE}, False),
        ({"Origin": "https://search.example", "Host": "search.example"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:80", **HERE}, True),
        ({"Origin": "null", **HERE}, True),
        ({"Origin": "", **HERE}, True),
        ({"Origin": "http://localhost:81", **HERE}, True),
        ({"Origin": "http://[", **HERE}, True),
        ({"Origin": "http://evil.example", **HERE}, True),
    ],
)
def test_which_requests_come_from_another_site(headers, expected):
    assert guards.comes_from_elsewhere(headers) is expected
