"""The files that users have uploaded. A file belongs to one user: two users who upload the same
picture have two files, so nobody learns what others have."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import peewee
from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BlobField,
    CompositeKey,
    ForeignKeyField,
    IntegerField,
    TextField,
    fn,
)

from database import db
from files import File, FileRef

PART_SIZE = 2**18  # bytes of a file in one row
LOOKED_UP = 500  # ids in one statement
# PostgreSQL refuses others if they have NUL or lone surrogates.
DIGEST = re.compile("[0-9a-f]{64}")


class UnknownFile(Exception):
    """The user has no such file. `pointer` (RFC 6901) is its place in the request."""

    def __init__(self, pointer: str) -> None:
        super().__init__(pointer)
        self.pointer = pointer


class StoredFile(db.Model):
    """A file. Its bytes are in its parts."""

    id = BigAutoField()
    owner = TextField()  # "" while it is being written, or deleted
    digest = TextField()  # the SHA-256 of its bytes
    media_type = TextField()
    width = IntegerField()
    height = IntegerField()
    size = BigIntegerField()
    # Since when no turn has had it, as far as the sweep has noticed. Null while a turn has it.
    unused_since = BigIntegerField(null=True)

    class Meta:
        table_name = "file"

    @classmethod
    def get_owned(cls, owner: str, digest: str) -> "StoredFile | None":
        if not DIGEST.fullmatch(digest):
            return None
        return cls.get_or_none(cls.owner == owner, cls.digest == digest, SQL("owner <> ''"))

    @classmethod
    def size_of_all(cls, owner: str) -> int:
        """The bytes of all files of this owner."""
        return int(cls.select(fn.SUM(cls.size)).where(cls.owner == owner).scalar() or 0)

    @property
    def file(self) -> File:
        return File(self.digest, self.media_type, self.width, self.height, self.size)


class FilePart(db.Model):
    """PART_SIZE bytes of a file, or fewer if it is the last part."""

    file = ForeignKeyField(StoredFile, on_delete="CASCADE", index=False)
    number = IntegerField()
    data = BlobField()

    class Meta:
        table_name = "file_part"
        primary_key = CompositeKey("file", "number")

    @classmethod
    def read(cls, file_id: int) -> bytes:
        """All bytes of a file."""
        parts = cls.select(cls.data).where(cls.file == file_id).order_by(cls.number)
        return b"".join(bytes(data) for (data,) in parts.tuples())


StoredFile.add_index(
    StoredFile.owner,
    StoredFile.digest,
    unique=True,
    where=SQL("owner <> ''"),
    name="file_owner",
)


def owned(owner: str, ids: Iterable[str]) -> dict[str, File]:
    """Those of these files that the owner has, by their ids."""
    wanted, found = list(filter(DIGEST.fullmatch, dict.fromkeys(ids))), {}
    for at in range(0, len(wanted), LOOKED_UP):
        some = StoredFile.digest.in_(wanted[at : at + LOOKED_UP])
        rows = StoredFile.select().where(StoredFile.owner == owner, some, SQL("owner <> ''"))
        found.update({row.digest: row.file for row in rows})
    return found


class Kept(NamedTuple):
    """A file of a turn."""

    row_id: int
    file: File


def keep(owner: str, refs: Sequence[FileRef], pointer: str = "/files") -> list[Kept]:
    """These files of the owner, in this order, which a turn gets in the caller's transaction.
    Raises UnknownFile for the first that the owner does not have; `pointer` is the place of the
    list in the request."""
    if not refs:
        return []
    # The update also locks the rows, so that no sweep deletes them meanwhile.
    update = StoredFile.update(unused_since=None).where(
        StoredFile.owner == owner,
        StoredFile.digest.in_([ref.id for ref in refs if DIGEST.fullmatch(ref.id)]),
        SQL("owner <> ''"),
    )
    columns: list[peewee.Field] = StoredFile._meta.sorted_fields
    rows = db.send(update.returning(*columns))()
    names = [column.name for column in columns]
    found = [StoredFile(**dict(zip(names, row, strict=True))) for row in rows]
    by_id = {file.digest: file for file in found}
    kept = []
    for place, ref in enumerate(refs):
        if ref.id not in by_id:
            raise UnknownFile(f"{pointer}/{place}")
        stored = by_id[ref.id]
        kept.append(Kept(stored.id, dataclasses.replace(stored.file, alt=ref.alt)))
    return kept
