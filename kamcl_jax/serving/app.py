"""The search page as a Flask application."""

import logging

from flask import Flask, Response, abort, render_template, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import BaseConverter
from werkzeug.wrappers import Response as AnyResponse

from kamcl_jax.search import searching
from kamcl_jax.search.index import ImageIndex, printable
from kamcl_jax.serving import guards
from kamcl_jax.serving.engine import Engine
from kamcl_jax.serving.limits import Limits
from kamcl_jax.serving.pictures import Pictures, Uploads
from kamcl_jax.serving.views import Views


class RowConverter(BaseConverter):
    """A row of an index in an address."""

    regex = "[0-9]{1,9}"

    def to_python(self, value: str) -> int:
        """Returns the number."""
        return int(value)


def make_app(index: ImageIndex, limits: Limits, *, only_this_machine: bool) -> Flask:
    """Makes the application; everything that its first visitor needs is compiled when it returns.

    With `only_this_machine` it refuses requests whose Host header names another machine, see
    `guards.names_this_machine`.
    """
    engine = Engine(index, limits.most_results)
    engine.warm_up(limits.query_tokens)
    pictures = Pictures(index, limits)
    uploads = Uploads(engine, pictures.decoders, limits)
    app = Flask(__name__)
    form_bytes = 2**16  # for the other fields of an upload's form
    app.config.update(MAX_CONTENT_LENGTH=limits.upload_bytes + form_bytes, MAX_FORM_PARTS=8)
    app.jinja_env.filters["printable"] = printable
    app.jinja_env.globals.update(index=index, limits=limits, scores_note=searching.SCORES_NOTE)
    _add_guards(app, only_this_machine)
    _add_error_pages(app, limits)
    _add_addresses(app, Views(engine, pictures, uploads, limits))
    return app


def _add_addresses(app: Flask, views: Views) -> None:
    app.url_map.merge_slashes = False
    app.url_map.converters.update(row=RowConverter)
    for address, view in (
        ("/", views.home),
        ("/search", views.search),
        ("/image/<row:row>", views.image),
        ("/image/<row:row>/thumbnail.jpg", views.thumbnail),
        ("/image/<row:row>/view.jpg", views.view),
        ("/upload/<token>", views.uploaded),
        ("/upload/<token>/view.jpg", views.uploaded_view),
    ):
        app.add_url_rule(address, view_func=view)
    app.add_url_rule("/upload", view_func=views.upload, methods=["POST"])


def _add_guards(app: Flask, only_this_machine: bool) -> None:
    def refuse() -> None:
        if only_this_machine and not guards.names_this_machine(request.headers.get("Host", "")):
            abort(403, "This address is not of this machine.")
        if request.method == "POST" and guards.comes_from_elsewhere(request.headers):
            abort(403, "Another site's page must not upload images.")

    def protect(response: Response) -> Response:
        response.headers.update(guards.RESPONSE_HEADERS)
        return response

    app.before_request(refuse)
    app.after_request(protect)


def _add_error_pages(app: Flask, limits: Limits) -> None:
    def tell(error: HTTPException) -> AnyResponse:
        sentence = error.description
        if isinstance(error, RequestEntityTooLarge):
            sentence = f"An upload has at most {limits.upload_megabytes} MB."
        response = error.get_response()  # it has headers of its own, as Allow
        response.data = render_template("error.html", name=error.name, sentence=sentence)
        return response

    app.register_error_handler(HTTPException, tell)
    app.logger.setLevel(logging.ERROR)  # a bug's traceback goes to stderr
