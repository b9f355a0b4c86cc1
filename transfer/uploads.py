"""Store a file that a user uploads: in short transactions, invisible until it is complete. If the
process dies before that, a sweep deletes what it has written (`maintenance/unused_files.py`)."""

import hashlib
import itertools

import images
from database import connected, db, insertion, transaction
from files import File
from maintenance import storage, unused_files
from tables.files import PART_SIZE, FilePart, StoredFile

PARTS = 4  # that one transaction writes


def upload(owner: str, data: bytes, storage_limit: int) -> tuple[File, bool]:
    """Store the picture in these bytes, without what is not the picture, unless the owner has it.
    Returns the file, and whether it is new. Raises BadImage if it is no JPEG or PNG, Refused if the
    owner, or the disk, has no room for it."""
    image = images.cut(data)
    digest = hashlib.sha256(image.data).hexdigest()
    with connected():
        if known := _keep_for_a_day(owner, digest):
            return known.file, False
    size = len(image.data)
    storage.check_room(owner, size, storage_limit)
    stored = StoredFile(
        owner="",
        digest=digest,
        media_type=image.media_type,
        width=image.width,
        height=image.height,
        size=size,
    )
    parts = enumerate(range(0, size, PART_SIZE))
    while some := list(itertools.islice(parts, PARTS)):
        with connected():
            _write(stored, [(number, image.data[at : at + PART_SIZE]) for number, at in some])
    with connected():
        file, is_new = _give(stored, owner)
    if not is_new:
        unused_files.delete(stored.id, StoredFile.owner == "")
    return file, is_new


@transaction
def _keep_for_a_day(owner: str, digest: str) -> StoredFile | None:
    """The owner's file of this digest. If no turn has it, its last day begins now."""
    known = StoredFile.get_owned(owner, digest)
    if known is not None:
        is_unused = StoredFile.unused_since.is_null(False)
        update = StoredFile.update(unused_since=db.now())
        update.where(StoredFile.id == known.id, is_unused).execute()
    return known


@transaction
def _write(stored: StoredFile, parts: list[tuple[int, bytes]]) -> None:
    """Write these parts, with their numbers; with the first, also the file, without an owner."""
    if parts[0][0] == 0:
        stored.id, stored.unused_since = None, db.now()
        stored.save(force_insert=True)
    db.send(insertion(*(FilePart(file=stored.id, number=each[0], data=each[1]) for each in parts)))


@transaction
def _give(stored: StoredFile, owner: str) -> tuple[File, bool]:
    """Give the complete file to the owner, unless the owner has got it meanwhile. Returns the
    owner's file, and whether it is this one."""
    db.lock(owner)
    if known := StoredFile.get_owned(owner, stored.digest):
        return known.file, False
    StoredFile.update(owner=owner, unused_since=db.now()).where(
        StoredFile.id == stored.id
    ).execute()
    return stored.file, True
