"""Static files from memory, with an ETag of their content."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}
_YEAR = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when last looked at."""

    body: bytes
    type: str
    digest: str
    stamp: tuple[int, int]

    @property
    def etag(self) -> str:
        return f'"{self.digest}"'

    def caching(self, version: str | None) -> str:
        """An address that names the content's own hash never changes; others are asked for again each time."""
        return _YEAR if version == self.digest else "no-cache"


class StaticFiles:
    """Files directly below `folder` and one folder deeper; a changed one is read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known: dict[str, File] = {}

    def find(self, name: str) -> File | None:
        """The file of that name, None where there is none or the name leads elsewhere."""
        parts = name.split("/")
        if len(parts) > 2 or any(not part or part.startswith(".") or "\0" in part for part in parts):
            return None
        path = self._folder.joinpath(*parts)
        try:
            if not path.resolve().is_relative_to(self._folder) or not path.is_file():
                return None
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            known = self._known.get(name)
            if known is None or known.stamp != stamp:
                body = path.read_bytes()
                kind = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
                known = self._known[name] = File(body, kind, hashlib.sha256(body).hexdigest()[:16], stamp)
        except (OSError, ValueError):
            return None
        return known
