"""Addresses of stores, in a grammar strict enough to be safe in any argument list.

    file:/abs/path                    a folder of this machine, or one mounted there
    rclone:remote:path                a remote of rclone.conf
    gs://bucket/prefix                Google Cloud Storage
    hf://datasets/user/name/prefix    a dataset repository of the Hugging Face Hub

Paths hold letters, digits and `._/-` only (a crafted remote path has run commands before), no `.`
or `..`, and no part that begins with a dot, a dash or ends with a dot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from jobs.backup.codec import Coded
from jobs.backup.errors import BadTarget

Scheme = Literal["file", "rclone", "gs", "hf"]

PATH_MAX: Final = 400
_PART: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?"
PATH: Final = re.compile(rf"{_PART}(?:/{_PART})*")
REMOTE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
OWNER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
SHAPES: Final = (
    "file:/abs/path, rclone:remote:path, gs://bucket/prefix or hf://datasets/user/name/prefix"
)
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Target(Coded):
    """Where a store is: `scheme`, `place` (remote, bucket, `user/name`; "" of a file), `path`.

    Only what `parse` accepts can be made.
    """

    scheme: Scheme
    place: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address. Raises `BadTarget` with one line: what is wrong, what is meant."""
        scheme, colon, rest = text.partition(":")
        if not colon or scheme not in _READERS:
            raise BadTarget(f"`{_shown(text)}` is no place for a copy; it is {SHAPES}")
        place, path = _READERS[scheme](text, rest)
        return cls(scheme, place, path)  # type: ignore[arg-type]  # the keys of _READERS

    @property
    def url(self) -> str:
        """The address as it is written."""
        tail = f"/{self.path}" if self.path else ""
        match self.scheme:
            case "file":
                return f"file:/{self.path}"
            case "rclone":
                return f"rclone:{self.place}:{self.path}"
            case "gs":
                return f"gs://{self.place}{tail}"
            case "hf":
                return f"hf://datasets/{self.place}{tail}"

    def __str__(self) -> str:
        return self.url

    def to_json(self) -> Any:
        """Return the address: that is how it travels."""
        return self.url

    @classmethod
    def decode(cls, value: object, place: str, strict: bool) -> Self:  # noqa: ARG003 - as Coded's
        """Read an address. Raises ValueError."""
        if not isinstance(value, str):
            raise ValueError(f"{place} is not an address")  # noqa: TRY004 - as Coded's
        try:
            return cls.parse(value)
        except BadTarget as error:
            raise ValueError(f"{place}: {error}") from None


def safe(path: str) -> bool:
    """Say whether `path` may be part of a store's address, or the name of an object in it."""
    return len(path) <= PATH_MAX and PATH.fullmatch(path) is not None


def _file(text: str, rest: str) -> tuple[str, str]:
    if not rest.startswith("/") or rest.startswith("//"):
        raise BadTarget(f"`{_shown(text)}`: a folder is written from the root, as file:/abs/path")
    if rest == "/":
        raise BadTarget(f"`{_shown(text)}`: the root folder cannot hold backups; name a folder")
    return "", _path(text, rest[1:])


def _rclone(text: str, rest: str) -> tuple[str, str]:
    remote, colon, path = rest.partition(":")
    if not colon:
        raise BadTarget(f"`{_shown(text)}`: the remote is followed by a colon: rclone:remote:path")
    if not REMOTE.fullmatch(remote):
        raise BadTarget(
            f"`{_shown(text)}`: a remote is named by letters, digits, `.`, `_` and `-`, "
            "and described in rclone.conf, not here"
        )
    return remote, _path(text, path)


def _gs(text: str, rest: str) -> tuple[str, str]:
    if not rest.startswith("//"):
        raise BadTarget(f"`{_shown(text)}`: a bucket is written gs://bucket/prefix")
    bucket, _, path = rest[2:].partition("/")
    if not BUCKET.fullmatch(bucket):
        raise BadTarget(
            f"`{_shown(text)}`: a bucket's name has 3 letters or more: a-z, 0-9, `.`, `_`, `-`"
        )
    return bucket, _path(text, path)


def _hf(text: str, rest: str) -> tuple[str, str]:
    kind, _, tail = rest.removeprefix("//").partition("/")
    owner, _, tail = tail.partition("/")
    name, _, path = tail.partition("/")
    if not rest.startswith("//") or kind != "datasets" or not owner or not name:
        raise BadTarget(f"`{_shown(text)}`: a dataset is written hf://datasets/user/name/prefix")
    for part in (owner, name):
        if not OWNER.fullmatch(part) or ".." in part or "--" in part:
            raise BadTarget(f"`{_shown(text)}`: `{_shown(part)}` is no name on the Hub")
    return f"{owner}/{name}", _path(text, path)


_READERS: Final = {"file": _file, "rclone": _rclone, "gs": _gs, "hf": _hf}


def _path(text: str, path: str) -> str:
    path = path.removesuffix("/")
    if path and not safe(path):
        wrong = sorted(set(re.sub(r"[A-Za-z0-9._/-]", "", path)))
        if wrong:
            why = f"`{_shown(wrong[0])}` cannot stand in a path; letters, digits and `._/-` can"
        elif len(path) > PATH_MAX:
            why = f"a path has {PATH_MAX} letters at most"
        else:
            why = "no part of a path is empty, begins with `.` or `-`, or ends with `.`"
        raise BadTarget(f"`{_shown(text)}`: {why}")
    return path


def _shown(text: str) -> str:
    """`text` on one line, cut: it comes from a file that somebody may have pasted a key into."""
    shown = text if text.isprintable() else text.encode("unicode_escape").decode()
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
