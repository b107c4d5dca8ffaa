"""Copies in a bucket of Google Cloud Storage.

google-cloud-storage asks and lists; the bytes of an upload are sent here, in chunks of a resumable
session that is remembered on disk: the library can only go on within one process. Objects are
atomic. `ifGenerationMatch` makes the server refuse to write over what somebody else put there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import google.auth
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2 import credentials as user
from google.oauth2 import service_account
from requests import Response
from requests.exceptions import RequestException

from jobs.backup.errors import (
    BadTarget,
    Conflict,
    Corrupt,
    CredentialExpired,
    CredentialRefused,
    NotFound,
    StoreBroken,
    StoreUnreachable,
)
from jobs.backup.form import Access
from jobs.backup.stores import answers
from jobs.backup.stores.base import (
    CHUNK,
    PART,
    Entry,
    Progress,
    Room,
    checked,
    digests,
    disagreement,
    first_line,
    hash_file,
    silent,
)
from jobs.backup.stores.landing import landing
from jobs.backup.stores.sessions import Upload, Uploads
from jobs.backup.targets import Target, safe

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
_TIMEOUT: Final = (15.0, 90.0)  # to connect, without an answer; seconds
_RETRY: Final = DEFAULT_RETRY.with_timeout(8.0)  # who called us waits longer, and tries again
_FIELDS: Final = "items(name,size,updated,crc32c,md5Hash,generation),nextPageToken"
_KINDS: Final = ("crc32c", "md5")
_STALLS: Final = 3
_PATIENCE_S: Final = 30.0  # more than that is waited for by whoever called us
_RESUME: Final = 308
_LATER: Final = frozenset({"server_error", "temporarily_unavailable", "internal_failure"})
"""OAuth's words for what is no fault of a login."""
_DONE: Final = frozenset({200, 201})
_GONE: Final = frozenset({404, 410})
_LOST: Final = _GONE | {400, 412, 499}
"""A session that answers so leads nowhere any more."""


def make(target: Target, access: Access, private: Path) -> GcsStore:
    """Return the store; credentials are read, nothing is asked of Google yet."""
    return GcsStore(target, access, private)


class GcsStore:
    """A prefix in a bucket."""

    def __init__(self, target: Target, access: Access, private: Path) -> None:
        self.url = target.url
        self.left_out = 0
        self._prefix = f"{target.path}/" if target.path else ""
        self._uploads = Uploads(private, target.url)
        self._http: Any = AuthorizedSession(  # type: ignore[no-untyped-call]
            _credentials(target.url, access)
        )
        self._http.trust_env = False  # a proxy's address may hold a password, and so may .netrc
        options = {"api_endpoint": access.endpoint} if access.endpoint else None
        client = storage.Client(
            project="-",
            credentials=self._http.credentials,
            _http=self._http,
            client_options=options,
        )
        # For traces that nobody makes, it would ask for the bucket itself, in a thread of its own
        # and again after each failure; whoever may only write objects is refused that.
        client._bucket_metadata_cache = None  # noqa: SLF001 - it looks for that before it asks
        self._bucket = client.bucket(target.place)

    def list(self, prefix: str = "") -> list[Entry]:
        with self._errors():
            pages = self._bucket.client.list_blobs(
                self._bucket,
                prefix=self._prefix + prefix,
                fields=_FIELDS,
                timeout=_TIMEOUT,
                retry=_RETRY,
            )
            found = [self._entry(blob) for blob in pages]
        ours = [e for e in found if safe(e.name) and not e.name.endswith(PART)]
        self.left_out = len(found) - len(ours)
        return sorted(ours, key=lambda entry: entry.name)

    def put(
        self, local: Path, name: str, *, progress: Progress = silent, replace: bool = False
    ) -> Entry:
        checked(name)
        hashes = hash_file(local, _KINDS)
        size = local.stat().st_size
        with self._errors(name):
            there = self._find(name)
            if there is not None and _same(self._entry(there), size, hashes):
                self._uploads.forget(name)
                progress(size, size)
                return self._entry(there)
            if there is not None and not replace:
                raise Conflict(f"{self.url} has another {name} already")
            generation = int(there.generation) if there is not None else 0
            try:
                made = self._upload(
                    local, name, Upload("", size, hashes["crc32c"], generation), progress
                )
            except Conflict:
                found = self._find(name)
                if found is None or not _same(self._entry(found), size, hashes):
                    raise
                made = found  # ours: the answer to an earlier attempt was lost
            self._uploads.forget(name)
            entry = self._entry(made)
            if not _same(entry, size, hashes):
                with contextlib.suppress(StoreBroken, api.GoogleAPIError):
                    if made.generation:  # else nobody knows whose object that would be
                        made.delete(
                            if_generation_match=made.generation, retry=None, timeout=_TIMEOUT
                        )
                raise Corrupt(f"{self.url}: {name} is not what was sent")
            return entry

    def get(self, name: str, local: Path, *, progress: Progress = silent) -> None:
        checked(name)
        with self._errors(name):
            blob = self._need(name)
            with landing(local) as file:
                sink = _Sink(file, progress, int(blob.size or 0), ("crc32c",))
                blob.download_to_file(sink, timeout=_TIMEOUT, checksum=None)
                if wrong := disagreement(sink.hashes, self._entry(blob).hashes):
                    raise Corrupt(f"{self.url}: {name} did not arrive as it is stored: {wrong}")

    def read(self, name: str, most: int) -> bytes:
        checked(name)
        with self._errors(name):
            blob = self._need(name)
            if int(blob.size or 0) > most:
                raise StoreBroken(f"{name} in {self.url} is longer than {most} bytes")
            return bytes(blob.download_as_bytes(timeout=_TIMEOUT, checksum=None))

    def delete(self, name: str) -> None:
        checked(name)
        with self._errors(name):
            upload = self._uploads.find(name)
            if upload is not None:
                with contextlib.suppress(RequestException):
                    self._http.delete(upload.session, timeout=_TIMEOUT, allow_redirects=False)
                self._uploads.forget(name)
            with contextlib.suppress(api.NotFound):
                self._bucket.blob(self._prefix + name).delete(timeout=_TIMEOUT, retry=_RETRY)

    def room(self) -> Room | None:
        return None  # a bucket has no end

    def check(self, name: str, hashes: Mapping[str, str]) -> str:
        with self._errors(name):
            blob = self._need(checked(name))
            wrong = disagreement(self._entry(blob).hashes, hashes)
            if wrong is not None:
                return wrong
            kinds = [kind for kind in ("sha256", "sha1") if kind in hashes]
            if not kinds:
                return "there is no hash to compare with"
            sink = _Sink(None, silent, 0, kinds)
            blob.download_to_file(sink, timeout=_TIMEOUT, checksum=None)
            return disagreement(sink.hashes, hashes) or ""

    def close(self) -> None:
        self._http.close()

    # ── uploading ───────────────────────────────────────────────────────────────────────────────

    def _upload(self, local: Path, name: str, wanted: Upload, progress: Progress) -> Any:
        """Send a file, going on with an earlier session for the same; returns the object."""
        known = self._uploads.find(name)
        answer: Response | None = None
        if known is not None and (known.size, known.crc32c, known.generation) == (
            wanted.size,
            wanted.crc32c,
            wanted.generation,
        ):
            answer = self._ask(known)
        if known is None or answer is None or answer.status_code in _GONE:
            known = self._begin(name, wanted)
            answer = None
        assert known is not None
        made = self._send(local, known, answer, progress, name)
        blob = self._bucket.blob(self._prefix + name)
        blob._set_properties(made)  # noqa: SLF001 - what the library itself does with an answer
        return blob

    def _begin(self, name: str, wanted: Upload) -> Upload:
        blob = self._bucket.blob(self._prefix + name)
        # The server compares, and refuses to make an object of anything else.
        blob.crc32c = base64.b64encode(bytes.fromhex(wanted.crc32c)).decode()
        session = blob.create_resumable_upload_session(
            content_type="application/octet-stream",
            size=wanted.size,
            if_generation_match=wanted.generation,
            checksum=None,
            timeout=_TIMEOUT,
            retry=_RETRY,
        )
        upload = Upload(session, wanted.size, wanted.crc32c, wanted.generation)
        self._uploads.keep(name, upload)
        return upload

    def _send(
        self, local: Path, upload: Upload, answer: Response | None, progress: Progress, name: str
    ) -> dict[str, Any]:
        """Send what is missing. Gives up, to be called again, when nothing more arrives."""
        offset, best, last, stalls = 0, 0, 0, 0
        with local.open("rb", buffering=0) as file:
            while True:
                if answer is not None and answer.status_code in _DONE:
                    progress(upload.size, upload.size)
                    return dict(answer.json())
                if answer is not None:
                    offset = self._received(answer, upload, name)
                    # What it lost again may come anew, but not for ever.
                    stalls = 0 if offset > best else stalls + (offset <= last)
                    best, last = max(best, offset), offset
                    progress(offset, upload.size)
                if stalls > _STALLS:
                    raise StoreUnreachable(f"{self.url}: uploading {name} makes no headway")
                file.seek(offset)
                answer = self._chunk(upload, file.read(CHUNK), offset)
                if answer is None or answer.status_code in answers.RETRIED:
                    self._wait(answer, stalls)
                    answer = self._ask(upload)

    def _chunk(self, upload: Upload, piece: bytes, offset: int) -> Response | None:
        """Send one chunk; None if the connection broke and nobody knows what arrived."""
        span = f"{offset}-{offset + len(piece) - 1}" if piece else "*"
        headers = {"Content-Range": f"bytes {span}/{upload.size}"}
        try:
            return self._put(upload, piece, headers)
        except RequestException:
            return None

    def _wait(self, answer: Response | None, stalls: int) -> None:
        """Wait as long as the server asked for. Raises when it asks for more, or goes on failing.

        The session stays: whoever tries again later goes on with it.
        """
        if answer is None:
            return
        failure = self._answered(answer)
        if stalls >= _STALLS or failure.retry_after_s > _PATIENCE_S:
            raise failure
        threading.Event().wait(failure.retry_after_s or 0.25 * 2**stalls)

    def _ask(self, upload: Upload) -> Response:
        """Ask how much of an upload arrived."""
        return self._put(upload, b"", {"Content-Range": f"bytes */{upload.size}"})

    def _put(self, upload: Upload, data: bytes, headers: dict[str, str]) -> Response:
        """Speak of an upload: 308 is an answer here, and no redirect."""
        answer = self._http.put(
            upload.session, data, headers=headers, timeout=_TIMEOUT, allow_redirects=False
        )
        assert isinstance(answer, Response)
        return answer

    def _received(self, answer: Response, upload: Upload, name: str) -> int:
        if answer.status_code != _RESUME:
            if answer.status_code in _LOST:
                self._uploads.forget(name)
            if answer.status_code in _GONE:
                raise StoreUnreachable(f"{self.url}: the upload of {name} expired; it begins anew")
            raise self._answered(answer)
        received = answer.headers.get("Range", "").removeprefix("bytes=0-")
        offset = int(received) + 1 if received.isdecimal() else 0
        if offset > upload.size:
            self._uploads.forget(name)
            raise Corrupt(f"{self.url} has more of {name} than there is")
        return offset

    # ── asking ──────────────────────────────────────────────────────────────────────────────────

    def _find(self, name: str) -> Any:
        blob = self._bucket.get_blob(self._prefix + name, timeout=_TIMEOUT, retry=_RETRY)
        if blob is not None and (blob.generation is None or blob.size is None):
            raise self._senseless(f" while at {name}")
        return blob

    def _need(self, name: str) -> Any:
        blob = self._find(name)
        if blob is None:
            raise NotFound(f"{self.url} has no {name}")
        return blob

    def _entry(self, blob: Any) -> Entry:
        hashes = {"crc32c": _hex(blob.crc32c), "md5": _hex(blob.md5_hash)}
        return Entry(
            str(blob.name).removeprefix(self._prefix),
            int(blob.size or 0),
            blob.updated.timestamp() if blob.updated else 0.0,
            {kind: value for kind, value in hashes.items() if value},
        )

    def _answered(self, answer: Response) -> StoreBroken:
        said, reason = _message(answer.text)
        return answers.broken(
            self.url,
            answer.status_code,
            said,
            answer.headers.get("Retry-After"),
            date=answer.headers.get("Date"),
            reason=reason,
        )

    @contextlib.contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        """Wrap the libraries' errors; their texts hold addresses of sessions, so none travels."""
        try:
            yield
        except (auth.GoogleAuthError, api.GoogleAPIError, RequestException, ConnectionError) as e:
            raise self._broken(e, f" while at {name}" if name else "") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            # The libraries take what they are given for what they asked for.
            raise self._senseless(f" while at {name}" if name else "") from None

    def _broken(self, error: BaseException, what: str) -> StoreBroken:
        if isinstance(error, api.RetryError) and error.cause is not None:
            return self._broken(error.cause, what)  # what it tried again, until it gave up
        match error:
            case api.GoogleAPICallError():
                answer = error.response
                if isinstance(answer, Response):
                    return self._answered(answer)
                return answers.broken(self.url, int(error.code or 0), str(error.message))
            case auth.RefreshError():
                return self._unlogged(error)
            case auth.GoogleAuthError() if not isinstance(error, auth.TransportError):
                return CredentialRefused(f"{self.url}: {type(error).__name__}")
            case ValueError():
                return self._senseless(what)
        return StoreUnreachable(
            f"{self.url}: no answer, or one that was cut ({type(error).__name__}){what}"
        )

    def _unlogged(self, error: Any) -> StoreBroken:
        """Tell a login that is over from a server that gives none just now, by its own word."""
        body = error.args[1] if len(error.args) > 1 else None
        word = body.get("error") if isinstance(body, dict) else None
        said = first_line(answers.shown(str(error.args[0]))) if error.args else ""
        if error.retryable or not isinstance(word, str) or word in _LATER:
            return StoreUnreachable(f"{self.url}: no login from Google just now ({said[:100]})")
        return CredentialExpired(
            f"{self.url}: Google gives no access with this login ({said}): make a new key"
        )

    def _senseless(self, what: str) -> StoreBroken:
        return StoreUnreachable(
            f"{self.url}: it answers nothing that Google would: is something in between?{what}"
        )


class _Sink:
    """A file that counts and hashes what is written to it."""

    def __init__(self, file: BinaryIO | None, progress: Progress, total: int, kinds: Any) -> None:
        self._file, self._progress, self._total = file, progress, total
        self._digests, self._done = digests(kinds), 0

    def write(self, data: bytes) -> int:
        if self._file is not None:
            self._file.write(data)
        for digest in self._digests.values():
            digest.update(data)
        self._done += len(data)
        self._progress(self._done, self._total)
        return len(data)

    @property
    def hashes(self) -> dict[str, str]:
        return {kind: digest.hexdigest() for kind, digest in self._digests.items()}


def _same(entry: Entry, size: int, hashes: Mapping[str, str]) -> bool:
    return entry.size == size and disagreement(entry.hashes, hashes) == ""


def _hex(text: str | None) -> str:
    return base64.b64decode(text).hex() if text else ""


def _message(text: str) -> tuple[str, str]:
    """Return what Google says of an error: its sentence, and its word for programs."""
    said = reason = ""
    with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
        error = json.loads(text)["error"]
        said = str(error["message"])
        reason = str(error["errors"][0]["reason"])
    return said, reason


def _credentials(url: str, access: Access) -> Any:
    """Read a service account's key or a user's credentials; else what the machine itself has.

    Other kinds may run programs or fetch addresses that they name: they are refused.
    """
    library: Any = google.auth  # half of it has no types
    try:
        if access.google:
            info = json.loads(access.google)
            if info.get("type") == "service_account":
                load: Any = service_account.Credentials.from_service_account_info
            elif info.get("type") == "authorized_user":
                load = user.Credentials.from_authorized_user_info
            else:
                raise BadTarget(f"{url}: its credential is no service account's key")
            found = load(info, scopes=[_SCOPE])
        elif access.endpoint:
            found = AnonymousCredentials()  # type: ignore[no-untyped-call]
        else:
            found = library.default(scopes=[_SCOPE])[0]
    except (ValueError, AttributeError, auth.GoogleAuthError) as error:
        raise BadTarget(f"{url}: its credential cannot be read ({type(error).__name__})") from None
    return found
