"""Files, from the request to the answer."""

from typing import Any

from flask import Response, current_app, g, request, url_for

from api import hooks
from api.services import release_slot, services
from models import Missing
from tables.files import FilePart, StoredFile
from transfer import uploads

# Whoever opens a picture from here in a browser gets a download, and nothing in it is executed.
HEADERS = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-cache",
    "Vary": "Authorization",
}
MEMORY_PER_BYTE = 2  # its parts, and all of it


def upload() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Store the file in the body."""
    refusal = "Two of your uploads are in progress, or many of others. Try again in a moment."
    with services().uploads.slot(g.user, refusal=refusal):
        release_slot()
        file, is_new = uploads.upload(g.user, g.body, current_app.config["STORAGE_LIMIT"])
    location = {"Location": url_for("api.download_file", file_id=file.id)}
    return file.to_dict(), 201 if is_new else 200, location


def download(file_id: str) -> Response:
    """The bytes of a file; or only that the client has them, by their `ETag`."""
    stored = StoredFile.get_owned(g.user, file_id)
    if stored is None:
        raise Missing("You have no such file.")
    response = Response(headers=HEADERS, content_type=stored.media_type)
    response.set_etag(file_id)
    if request.if_none_match.contains(file_id):
        response.status_code = 304
        return response
    hooks.reserve_memory(stored.size, MEMORY_PER_BYTE)
    response.data = FilePart.read(stored.id)
    hooks.keep_memory(response, stored.size)
    return response
