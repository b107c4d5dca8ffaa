"""Copies in a private dataset repository of the Hugging Face Hub.

A commit is atomic and names the commit it follows, so nothing is written over unseen. What is cut
is sent again from the start: the Hub's plain uploads cannot go on in another process.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Final

from httpx2 import Client, HTTPError, Response, Timeout
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # it exports these without saying so
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
    parse_ratelimit_headers,
)
from huggingface_hub.utils._http import hf_request_event_hook

from jobs.backup.errors import (
    Conflict,
    Corrupt,
    CredentialRefused,
    NotFound,
    StoreBroken,
    StoreFullError,
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
from jobs.backup.targets import Target, safe

_KIND: Final = "dataset"
_MOVED_ON: Final = frozenset({409, 412})
_TIMEOUT_S: Final = 90.0
_PATIENCE_S: Final = 30.0  # more than that is waited for by whoever called us
_REFUSED: Final = frozenset({400, 401, 403})
_THROTTLED: Final = frozenset({429, 503})


def make(target: Target, access: Access, private: Path) -> HubStore:  # noqa: ARG001 - as the others
    """Return the store; nothing is asked of the Hub yet."""
    disable_progress_bars()
    set_client_factory(client)
    return HubStore(target, access)


class _Later(Exception):
    """An answer that asks for a long wait, which the library would sleep through here and now."""

    def __init__(self, answer: Response, wait_s: float) -> None:
        super().__init__()
        self.status, self.wait_s = answer.status_code, wait_s


def client(timeout_s: float = _TIMEOUT_S) -> Client:
    """Make the library's client: its own would wait for ever for an answer."""
    hooks: Any = {"request": [hf_request_event_hook], "response": [_impatient]}
    timeout = Timeout(timeout_s, connect=15.0)
    return Client(event_hooks=hooks, follow_redirects=True, timeout=timeout)


def _impatient(answer: Response) -> None:
    if answer.status_code in _THROTTLED:
        wait_s = _wait_s(answer)
        if wait_s > _PATIENCE_S:
            raise _Later(answer, wait_s)


def _wait_s(answer: Response) -> float:
    """Return how long the Hub asks to wait: by its own header of limits, or by Retry-After."""
    limits = parse_ratelimit_headers(answer.headers)
    if limits is not None and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    return answers.seconds(answer.headers.get("Retry-After"), answer.headers.get("Date"))


class HubStore:
    """A prefix in a dataset. Large files have a SHA-256 there; small ones are read to compare."""

    def __init__(self, target: Target, access: Access) -> None:
        self.url = target.url
        self.left_out = 0
        self._repo = target.place
        self._prefix = f"{target.path}/" if target.path else ""
        # False: never the login that happens to be on this machine.
        token: str | bool = access.hub_token or False
        self._api = HfApi(endpoint=access.endpoint or None, token=token, library_name="aion")

    def list(self, prefix: str = "") -> list[Entry]:
        """As every store; `modified` is 0: the Hub knows times of commits only."""
        with self._errors():
            found = [self._entry(file) for file in self._tree(self._prefix.rstrip("/"))]
        ours = [e for e in found if safe(e.name) and not e.name.endswith(PART)]
        self.left_out = len(found) - len(ours)
        return sorted((e for e in ours if e.name.startswith(prefix)), key=lambda e: e.name)

    def put(
        self, local: Path, name: str, *, progress: Progress = silent, replace: bool = False
    ) -> Entry:
        checked(name)
        size = local.stat().st_size
        hashes = hash_file(local, ("sha256",))
        with self._errors(name):
            head = self._head()
            there = self._find(name, head)
            if there is not None:
                if there.size == size and not self._differs(there, hashes, head):
                    progress(size, size)
                    return self._entry(there)
                if not replace:
                    raise Conflict(f"{self.url} has another {name} already")
            with local.open("rb") as raw:
                # A path first: from a file object the library would read it all to hash it again.
                # Then a file object: those do not go by the library's other protocol (xet), which
                # may take hundreds of megabytes of memory.
                add = CommitOperationAdd(self._prefix + name, str(local.absolute()))
                add.upload_info.sha256 = bytes.fromhex(hashes["sha256"])
                add.path_or_fileobj = _Counted(raw, progress, size)
                commit = self._commit(add, f"aion: {name}", head)
            made = self._find(name, commit)
            wrong = "it is not there" if made is None else self._differs(made, hashes, commit)
            if made is None or wrong:
                raise Corrupt(f"{self.url}: {name} is not what was sent: {wrong}")
            return self._entry(made)

    def get(self, name: str, local: Path, *, progress: Progress = silent) -> None:
        checked(name)
        with self._errors(name):
            file = self._need(name)
            made, done = digests(("sha256",))["sha256"], 0
            with landing(local) as to:
                for piece in self._bytes(name):
                    to.write(piece)
                    made.update(piece)
                    done += len(piece)
                    progress(done, file.size)
                wrong = disagreement({"sha256": made.hexdigest()}, self._entry(file).hashes)
                if wrong or done != file.size:
                    raise Corrupt(f"{self.url}: {name} did not arrive as it is stored")

    def read(self, name: str, most: int) -> bytes:
        checked(name)
        with self._errors(name):
            if self._need(name).size > most:
                raise StoreBroken(f"{name} in {self.url} is longer than {most} bytes")
            return b"".join(self._bytes(name))

    def delete(self, name: str) -> None:
        """As every store; a large file's bytes go too, which a commit alone would keep for ever."""
        checked(name)
        with self._errors(name):
            head = self._head()
            file = self._find(name, head)
            if file is None:
                return
            self._commit(CommitOperationDelete(self._prefix + name), f"aion: no {name}", head)
            shared = {f.lfs.sha256 for f in self._tree("") if f.lfs is not None}
            if file.lfs is not None and file.lfs.sha256 not in shared:
                deletions = {"sha": [file.lfs.sha256], "rewriteHistory": False}
                at = f"{self._api.endpoint}/api/{_KIND}s/{self._repo}/lfs-files/batch"
                headers = self._api._build_hf_headers()  # noqa: SLF001 - as its own calls do
                answer = get_session().post(at, headers=headers, json={"deletions": deletions})
                hf_raise_for_status(answer)

    def room(self) -> Room | None:
        with self._errors():
            used = self._info(["usedStorage"]).used_storage
        return None if used is None else Room(None, int(used), None)

    def check(self, name: str, hashes: Mapping[str, str]) -> str:
        checked(name)
        with self._errors(name):
            return self._differs(self._need(name), hashes, constants.DEFAULT_REVISION)

    def close(self) -> None:
        """Nothing is held."""

    # ── how it is done ──────────────────────────────────────────────────────────────────────────

    def _info(self, expand: Any = None) -> Any:
        return self._api.dataset_info(self._repo, expand=expand, timeout=_TIMEOUT_S)

    def _head(self) -> str:
        """Return the last commit. Raises when everybody could read what is put there."""
        info = self._info()
        if info.private is not True:
            raise CredentialRefused(f"{self.url} is public: make the dataset private first")
        return str(info.sha)

    def _tree(self, folder: str) -> Iterator[RepoFile]:
        with contextlib.suppress(RemoteEntryNotFoundError):  # a folder comes with its first file
            for file in self._api.list_repo_tree(
                self._repo, folder or None, recursive=True, repo_type=_KIND
            ):
                if isinstance(file, RepoFile):
                    yield file

    def _find(self, name: str, revision: str) -> RepoFile | None:
        path = self._prefix + name
        found = self._api.get_paths_info(self._repo, [path], revision=revision, repo_type=_KIND)
        return next((f for f in found if isinstance(f, RepoFile) and f.path == path), None)

    def _need(self, name: str) -> RepoFile:
        found = self._find(name, constants.DEFAULT_REVISION)
        if found is None:
            raise NotFound(f"{self.url} has no {name}")
        return found

    def _entry(self, file: RepoFile) -> Entry:
        hashes = {"sha256": file.lfs.sha256} if file.lfs is not None else {}
        return Entry(file.path.removeprefix(self._prefix), file.size, 0.0, hashes)

    def _differs(self, file: RepoFile, hashes: Mapping[str, str], revision: str) -> str:
        entry = self._entry(file)
        wrong = disagreement(entry.hashes, hashes)
        if wrong is not None:
            return wrong
        kind = next((k for k in ("sha256", "sha1", "md5", "crc32c") if k in hashes), None)
        if kind is None:
            return "there is no hash to compare with"
        made = digests((kind,))[kind]
        for piece in self._bytes(entry.name, revision):
            made.update(piece)
        return disagreement({kind: made.hexdigest()}, hashes) or ""

    def _bytes(self, name: str, revision: str = constants.DEFAULT_REVISION) -> Iterator[bytes]:
        path = f"{_KIND}s/{self._repo}/resolve/{revision}/{self._prefix}{name}"
        headers = self._api._build_hf_headers()  # noqa: SLF001 - as its own downloads do
        asked = get_session().stream(
            "GET", f"{self._api.endpoint}/{path}", headers=headers, timeout=_TIMEOUT_S,
            follow_redirects=True,
        )  # fmt: skip
        with asked as answer:
            if answer.is_error:
                answer.read()
            hf_raise_for_status(answer)
            yield from answer.iter_bytes(CHUNK)

    def _commit(self, operation: Any, message: str, head: str) -> str:
        made = self._api.create_commit(
            self._repo, [operation], commit_message=message, parent_commit=head, repo_type=_KIND
        )
        return str(made.oid)

    @contextlib.contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        """Wrap the libraries' errors; their texts hold signed addresses, so none travels."""
        try:
            yield
        except RepositoryNotFoundError:
            raise NotFound(f"{self.url}: no such dataset, or not for this login") from None
        except RemoteEntryNotFoundError:
            raise NotFound(f"{self.url} has no {name}") from None
        except (HTTPError, RuntimeError, ValueError, _Later) as error:
            raise self._broken(error, f" while at {name}" if name else "") from None
        except (TypeError, KeyError, AttributeError):
            raise self._senseless(f" while at {name}" if name else "") from None

    def _broken(self, error: BaseException, what: str) -> Exception:
        found: BaseException | None = error
        while isinstance(found, RuntimeError) and found.__cause__ is not None:
            found = found.__cause__  # the library wraps what happened to an upload
        match found:
            case _Later():
                made = answers.broken(self.url, found.status)
                made.retry_after_s = found.wait_s
                return made
            case HfHubHTTPError():
                return self._answered(found)
            case JSONDecodeError() | TypeError() | KeyError() | AttributeError():
                return self._senseless(what)
            case ValueError():  # what its LFS server says comes as one of these
                said = first_line(answers.shown(str(found).replace("\n", " ")))
                full = answers.FULL.search(said)
                return (StoreFullError if full else StoreUnreachable)(f"{self.url}: {said}{what}")
            case Exception() if not isinstance(found, HTTPError | RuntimeError):
                return found
        why = f"no answer, or one that was cut ({type(found).__name__})"
        return StoreUnreachable(f"{self.url}: {why}{what}")

    def _answered(self, error: HfHubHTTPError) -> StoreBroken:
        answer: Response = error.response
        said = error.server_message or ""
        if answer.status_code in _MOVED_ON:
            return StoreUnreachable(f"{self.url}: somebody else wrote meanwhile")
        if answer.status_code in _REFUSED and "authorization" not in answer.request.headers:
            # An address that was signed for an hour, not the login: the next attempt is given one.
            why = f"its upload address is no longer good (HTTP {answer.status_code})"
            return StoreUnreachable(f"{self.url}: {why}")
        made = answers.broken(self.url, answer.status_code, said)
        made.retry_after_s = _wait_s(answer)
        return made

    def _senseless(self, what: str) -> StoreBroken:
        return StoreUnreachable(
            f"{self.url}: it answers nothing that the Hub would: is something in between?{what}"
        )


class _Counted(io.BufferedReader):
    """A file that reports how far it was read; the library reads it and goes back as it likes."""

    def __init__(self, raw: Any, progress: Progress, size: int) -> None:
        super().__init__(raw.raw, CHUNK)
        self._progress, self._size, self._best = progress, size, 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        if self.tell() > self._best:
            self._best = self.tell()
            self._progress(self._best, self._size)
        return piece
