"""The pages, one method each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flask import Response, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from input_pipeline.errors import DataError
from input_pipeline.images.files import UnreadableImageError
from input_pipeline.language.tokens import tokenize
from kamcl_jax.search.index import ImageIndex, printable
from kamcl_jax.search.searching import Found, query_notes
from kamcl_jax.serving.engine import Engine
from kamcl_jax.serving.limits import Limits
from kamcl_jax.serving.pictures import Pictures, Upload, Uploads

GONE = Path(__file__).parent / "static" / "gone.svg"
"""It is shown for an image whose file is gone or cannot be read any more."""


class Card(NamedTuple):
    """An image in a list; `score` is its cosine with the query, None if there is no query."""

    row: int
    file: str
    score: float | None = None


@dataclass(frozen=True)
class Views:
    """What is answered to each address."""

    engine: Engine
    pictures: Pictures
    uploads: Uploads
    limits: Limits

    @property
    def index(self) -> ImageIndex:
        """What is searched."""
        return self.engine.index

    def home(self) -> str:
        """The start page: a few images of the index and what the model sees in them."""
        last = len(self.index.files) - 1
        rows = np.unique(np.linspace(0, last, self.limits.samples).astype(int)).tolist()
        cards = [Card(row, self.index.files[row]) for row in rows]
        return render_template("home.html", cards=cards, words=self.engine.distinctive_words(rows))

    def search(self) -> str | AnyResponse:
        """The images nearest to the words of `?q=`."""
        query = " ".join(request.args.get("q", "").split())
        if not query:
            return redirect(url_for("home"))
        self._check_length(query)
        try:
            found = self.engine.by_text(query)
        except DataError as error:
            abort(400, str(error))
        notes = query_notes(self.index.model, query)
        return render_template(
            "search.html", query=query, notes=notes, **self._listed(found, q=query)
        )

    def image(self, row: int) -> str:
        """An image of the index: what the model sees in it, and those like it."""
        self._check_row(row)
        return render_template(
            "image.html",
            picture=url_for("view", row=row),
            name=self.index.files[row],
            concepts=self.engine.concepts_seen(self.index.concepts[row], self.limits.concepts),
            is_gone=self._is_gone(row),
            **self._listed(self.engine.by_row(row), row=row),
        )

    def thumbnail(self, row: int) -> AnyResponse:
        """A small picture of an image of the index."""
        return self._picture(row, self.limits.thumbnail_side)

    def view(self, row: int) -> AnyResponse:
        """A large picture of an image of the index."""
        return self._picture(row, self.limits.view_side)

    def upload(self) -> AnyResponse:
        """Takes an uploaded image, and leads to its page, which can be reloaded."""
        file = request.files.get("image")
        if file is None or not file.filename:
            abort(400, "No image was chosen.")
        try:
            token = self.uploads.add(file.filename, file.read())
        except UnreadableImageError as error:
            abort(400, f"The image {printable(file.filename)} cannot be read: {error}.")
        return redirect(url_for("uploaded", token=token), 303)

    def uploaded(self, token: str) -> str:
        """An uploaded image: what the model sees in it, and those like it."""
        upload = self._get_upload(token)
        return render_template(
            "image.html",
            picture=url_for("uploaded_view", token=token),
            name=upload.name,
            concepts=self.engine.concepts_seen(upload.concepts, self.limits.concepts),
            **self._listed(self.engine.by_embedding(upload.embedding), token=token),
        )

    def uploaded_view(self, token: str) -> Response:
        """A large picture of an uploaded image."""
        return Response(self._get_upload(token).jpeg, mimetype="image/jpeg")

    def _check_length(self, query: str) -> None:
        characters, tokens = self.limits.query_characters, self.limits.query_tokens
        if len(query) > characters:
            abort(400, f"A query has at most {characters} characters; this one has {len(query)}.")
        if len(tokenize(query)) > tokens:
            abort(400, f"A query has at most {tokens} words and punctuation marks.")

    def _check_row(self, row: int) -> None:
        if row >= len(self.index.files):
            abort(404, f"The index has no image {row}.")

    def _get_upload(self, token: str) -> Upload:
        upload = self.uploads.get(token)
        if upload is None:
            abort(404, "This upload is not kept any more: please upload the image again.")
        return upload

    def _listed(self, found: Sequence[Found], **address: Any) -> dict[str, object]:
        """Returns what a page needs to list images, and the address that lists more of them."""
        shown = request.args.get("show", self.limits.results, type=int)
        shown = min(max(shown, 1), self.limits.most_results)
        more = url_for(str(request.endpoint), **address, show=self.limits.most_results)
        has_more = min(len(found), self.limits.most_results) > shown
        cards = [Card(*one) for one in found[:shown]]
        return {"cards": cards, "more_address": more if has_more else None}

    def _is_gone(self, row: int) -> bool:
        try:
            self.index.path_of(row)
        except DataError:
            return True
        return False

    def _picture(self, row: int, side: int) -> AnyResponse:
        self._check_row(row)
        try:
            picture = self.pictures.picture(row, side)
        except DataError:
            uncached = {"Cache-Control": "no-store"}
            return Response(GONE.read_bytes(), 404, uncached, mimetype="image/svg+xml")
        response = Response(picture.jpeg, mimetype="image/jpeg")
        response.set_etag(picture.tag)
        response.headers["Cache-Control"] = "no-cache"  # asks whether it has changed
        return response.make_conditional(request)
