"""What the server refuses before it looks at a request, and what it tells browsers to refuse."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers

RESPONSE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: with that, browsers say that the origin of a posted form is null.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Nothing is loaded from elsewhere, no inline script runs, no other site frames or embeds us."""


def is_loopback(host: str) -> bool:
    """Returns whether a host name or an IP address, without a port, is of this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_this_machine(host_header: str) -> bool:
    """Returns whether a Host header names this machine.

    A web site can make its own name point to 127.0.0.1 (DNS rebinding). To a browser the page then
    belongs to that site, which may read it, but the header still has the site's name. The port does
    not matter: it may be forwarded, as by `ssh -L`.
    """
    try:
        return is_loopback(urlsplit(f"//{host_header}").hostname or "")
    except ValueError:
        return False


def comes_from_elsewhere(headers: Mapping[str, str] | Headers) -> bool:
    """Returns whether a page of another origin has made a request, as far as the browser says.

    Programs other than browsers send neither header, and are not led by web pages.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("Origin")
    # The scheme may differ: a proxy may add TLS.
    return origin is not None and _netloc(origin) != headers.get("Host")


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
