import pytest

from kamcl_jax.serving import guards


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.0.0.1", "[::1]:80", "127.8.9.1"]
)
def test_names_of_this_machine(host):
    assert guards.names_this_machine(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "0.0.0.0:8000",
        "192.168.0.7",
        "[::1",
        "evil.example#127.0.0.1",
        "evil.example/localhost",
        ":8000",
    ],
)
def test_names_of_other_machines(host):
    assert not guards.names_this_machine(host)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:80"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost:80", "Host": "localhost:80"},
        {"Origin": "https://search.example", "Host": "search.example"},
    ],
)
def test_requests_of_the_page_itself_and_of_programs(headers):
    assert not guards.comes_from_elsewhere(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:80", "Host": "localhost:80"},
        {"Origin": "null", "Host": "localhost:80"},
        {"Origin": "", "Host": "localhost:80"},
        {"Origin": "http://localhost:81", "Host": "localhost:80"},
        {"Origin": "http://[", "Host": "localhost:80"},
        {"Origin": "http://evil.example", "Host": "localhost:80"},
    ],
)
def test_requests_of_other_sites(headers):
    assert guards.comes_from_elsewhere(headers)
