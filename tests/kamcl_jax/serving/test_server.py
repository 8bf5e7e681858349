"""A real server: many visitors at once, a real browser, and the command line."""

import contextlib
import dataclasses
import http.client
import os
import re
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from tiny_page import LIMITS

from input_pipeline.errors import DataError
from kamcl_jax.errors import ConfigError
from kamcl_jax.serving import server

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def served(page_app):
    """The address of a server in a thread."""
    listener = server.listen("127.0.0.1", 0)
    threading.Thread(target=server.run, args=(page_app, listener, LIMITS), daemon=True).start()
    return server.url(listener)


def get(address):
    try:
        with urlopen(address, timeout=60) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def test_200_requests_at_once_are_answered_as_one_after_another(served, served_index):
    paths = []
    for number in range(40):
        row, query = number % len(served_index.files), ("pond", "harbour", "silo")[number % 3]
        paths += [f"/search?q={query}&show={number % 8 + 1}", f"/image/{number + 100}"]
        paths += [f"/image/{row}", f"/image/{row}/thumbnail.jpg", "/static/page.css"]
    alone = {path: get(served + path) for path in set(paths)}
    assert {status for status, _ in alone.values()} == {200, 404}
    together = threading.Barrier(len(paths))

    def visit(path):
        together.wait(60)
        return get(served + path)

    with ThreadPoolExecutor(len(paths)) as pool:
        answers = list(pool.map(visit, paths))
    assert answers == [alone[path] for path in paths]


def test_paths_that_lead_out_are_refused_as_they_are_sent(served, served_index):
    connection = http.client.HTTPConnection(urlsplit(served).netloc, timeout=60)
    secret = f"{served_index.images_root.parent}/secret.txt"
    up = "/.." * 12
    for path in (up + secret, f"/static{up}{secret}", "/static/../app.py", f"/{secret}", secret):
        connection.request("GET", path)  # a browser would shorten the path
        answer = connection.getresponse()
        assert answer.status == 404
        answer.read()


def test_an_upload_that_is_too_large_is_told_by_the_server(served):
    connection = http.client.HTTPConnection(urlsplit(served).netloc, timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/upload", bytes(3 * LIMITS.upload_bytes // 2), headers)
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"An upload has at most 0.3 MB." in answer.read()


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("there is no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.implicitly_wait(20)
    yield driver
    driver.quit()


def test_a_visitor_types_clicks_and_uploads(browser, served, served_index, tmp_path):
    def find(selector):
        return browser.find_element("css selector", selector)

    def shown():
        """Whether each image of the page is there, once all are loaded."""
        script = """const done = arguments[0];
            const images = [...document.images];
            images.forEach(image => image.loading = "eager");
            const loaded = image => image.decode().then(() => true, () => false);
            Promise.all(images.map(loaded)).then(done)"""
        return browser.execute_async_script(script)

    def fits(width):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        return browser.execute_script("return document.documentElement.scrollWidth") <= width

    browser.get(served)
    find("#query").send_keys("a harbour <script>document.title = 'attacked'</script>\n")
    assert find("q").text == "a harbour <script>document.title = 'attacked'</script>"
    assert browser.title.startswith("a harbour")
    assert shown() == [True] * LIMITS.results
    assert fits(400)
    assert fits(1400)

    find(".card").click()
    assert find("h2").text == "What the model sees"
    assert shown() == [True] * (LIMITS.results + 1)
    bars = browser.find_elements("css selector", ".concepts rect")
    widths = [bar.size["width"] for bar in bars]
    assert widths == sorted(widths, reverse=True)
    assert all(widths)
    assert fits(400)

    hostile = tmp_path / "<b>&'name'.png"
    shutil.copy(served_index.path_of(2), hostile)
    find("#image").send_keys(str(hostile))
    assert find("h1 bdi").text in (hostile.name, served_index.files[2])
    assert re.search("/upload/", browser.current_url)
    assert shown() == [True] * (LIMITS.results + 1)
    assert find(".score").text.endswith("1.000")

    (tmp_path / "large.png").write_bytes(bytes(LIMITS.upload_bytes + 1))
    find("#image").send_keys(str(tmp_path / "large.png"))
    assert find(".message").text == "An upload has at most 0.3 MB."
    assert browser.get_log("browser") == []


def test_an_address_that_cannot_be_is_told():
    with server.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        expected = f"port {port}: Address already in use; --port=0 takes a free one$"
        with pytest.raises(ConfigError, match=expected):
            server.listen("127.0.0.1", port)
    for host in ("no-such-host.invalid", "a" * 70, "203.0.113.1"):
        with pytest.raises(ConfigError, match=f"^cannot serve at {host}, port 8000: "):
            server.listen(host, 8000)


@pytest.fixture
def ready(served_index, monkeypatch):
    """Lets `serve` find the index that other tests have compiled everything for."""
    monkeypatch.setattr(server, "open_index", lambda folder, with_model: served_index)
    monkeypatch.setattr(server, "Limits", lambda: LIMITS)


def test_ctrl_c_ends_it_with_one_line(ready, served_index, capsys):
    with server.listen("127.0.0.1", 0) as listener:
        address, answers = server.url(listener), []

    def visit_and_interrupt():
        while not answers:
            with contextlib.suppress(OSError):
                answers.append(get(f"{address}/search?q=pond"))
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        visitor = threading.Thread(target=visit_and_interrupt)
        visitor.start()
        server.serve(served_index.folder, "127.0.0.1", urlsplit(address).port)
        visitor.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert answers[0][0] == 200
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == (
        f"reading the model of {served_index.folder}\n"
        f"14 images at {address} (Ctrl-C ends this)\n"
        "\nended\n"
    )


@pytest.mark.parametrize(
    ("host", "is_told", "status_for_another_name"),
    # 127.1 is another name of 127.0.0.1, and guarded as well.
    [("0.0.0.0", True, 200), ("127.1", False, 403)],
)
def test_whoever_lets_others_in_is_told(
    ready, served_index, monkeypatch, capsys, host, is_told, status_for_another_name
):
    apps, note = [], f"whoever reaches {host} can search and see these images"
    monkeypatch.setattr(server, "run", lambda app, *_: apps.append(app))
    server.serve(served_index.folder, host, 0)
    assert (note in capsys.readouterr().err) is is_told
    response = apps[0].test_client().get("/", headers={"Host": "search.example"})
    assert response.status_code == status_for_another_name


def test_what_is_no_index_is_told(served_index, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="is no index of images"):
        server.serve(tmp_path, "127.0.0.1", 0)
    empty = dataclasses.replace(served_index, states=[])
    monkeypatch.setattr(server, "open_index", lambda folder, with_model: empty)
    with pytest.raises(DataError, match="is an index without images"):
        server.serve(tmp_path, "127.0.0.1", 0)
