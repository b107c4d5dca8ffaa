"""Kaggle's own client at a given address, and what its refusals mean. Runs in a child only."""

# ruff: noqa: PLR2004  # HTTP statuses are known by their numbers

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import requests
from kagglesdk.kaggle_env import KaggleEnv
from kagglesdk.kaggle_http_client import KaggleHttpClient
from requests.adapters import HTTPAdapter

from orchestrator.core.powering import Snag

CONNECT_S, ANSWER_S = 10.0, 50.0
SAID_MOST: Final = 300
Q = TypeVar("Q")
A = TypeVar("A")

# As Kaggle words them, so that the one which passes within the hour is not taken for the one that
# passes within the week: "Maximum weekly GPU quota of 30.00 hours reached." and "Maximum batch GPU
# session count of 2 reached."
SPENT: Final = re.compile(
    r"\bquota\b|\bweekly\b.*\b(limit|hours)\b|number of hours allowed", re.IGNORECASE
)
BUSY: Final = re.compile(r"\bsessions?\b.*\bcount\b|maximum .*\bsessions\b", re.IGNORECASE)
PASSING: Final = re.compile(
    r"try again|temporar|too many requests|rate limit|internal (server )?error", re.IGNORECASE
)
NO_KEY: Final = (
    "Kaggle does not take the key: make a new one at https://www.kaggle.com/settings/api,"
    " aion secret set, aion reload"
)
PHONE: Final = re.compile(r"phone|verif", re.IGNORECASE)


class Trouble(Exception):
    """What Kaggle said instead of doing it. `status`: the HTTP status, 0 where there was none.

    `worded`: it said so in words of its interface, so it is no page of somebody in between.
    """

    def __init__(
        self,
        snag: Snag,
        detail: str,
        *,
        status: int = 0,
        retry_after_s: float | None = None,
        worded: bool = False,
    ) -> None:
        super().__init__(detail)
        self.snag, self.status, self.retry_after_s = snag, status, retry_after_s
        self.worded = worded
        self.detail = " ".join(detail.split())[:SAID_MOST]
        self.refresh: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Give it as the daemon's side reads it."""
        said = {"snag": self.snag.value, "detail": self.detail, "refresh": self.refresh}
        return {**said, "retry_after_s": self.retry_after_s}


class _Patient(HTTPAdapter):
    """Waits for an answer, but not for ever: the client itself sets no deadline."""

    def __init__(self, answer_s: float) -> None:
        super().__init__()
        self._timeout = (CONNECT_S, answer_s)

    def send(self, request: Any, *given: Any, **more: Any) -> requests.Response:
        more["timeout"] = self._timeout
        return super().send(request, *given, **more)


class Client(KaggleHttpClient):  # type: ignore[misc]  # the library has no types
    """The client, with no credential but ours, following no redirect.

    Its addresses are constants, and it looks for keys in the environment and the home folder before
    those it was given; both are its own inner workings, as of kagglesdk 0.1.37. `session_id`: the
    id of the run last asked for, should Kaggle come to tell it: its answer then has a field more.
    """

    def __init__(self, api: str, auth: dict[str, str], answer_s: float = ANSWER_S) -> None:
        self.session_id, self._answer_s = 0, answer_s
        super().__init__(
            KaggleEnv.PROD,
            username=auth.get("username"),
            password=auth.get("key"),
            api_token=auth.get("token"),
            user_agent="aion",
            response_processor=self._notice,
        )
        self._endpoint = api.rstrip("/")

    def _init_session(self) -> requests.Session:
        is_new = self._session is None
        super()._init_session()
        session: requests.Session = self._session
        if is_new:
            session.trust_env, session.max_redirects = False, 0
            for scheme in ("https://", "http://"):
                session.mount(scheme, _Patient(self._answer_s))
        return session

    def _try_fill_auth(self) -> None:
        if self._api_token is not None:
            self._session.auth = KaggleHttpClient.BearerAuth(self._api_token)
        else:
            self._session.auth = (self._username, self._password)

    def _notice(self, response: requests.Response) -> None:
        body = response.json()
        # The library takes the first state of all for one that is missing, or is no state at all.
        if not isinstance(body, dict) or body.get("status", "missing") == "":
            raise ValueError("it is no answer")
        found = body.get("kernelSessionId")
        self.session_id = found if isinstance(found, int) else 0


def asked(method: Callable[[Q], A], request: Q, *, writes: bool = False) -> A:
    """Ask; raises `Trouble` for everything but an answer. `writes`: it may have been done."""
    unknown = Snag.LOST if writes else Snag.TRANSIENT
    try:
        return method(request)
    except requests.HTTPError as error:
        raise _answered(error, unknown) from None
    except requests.ConnectTimeout:
        raise Trouble(Snag.TRANSIENT, "Kaggle cannot be reached: no connection in time") from None
    except requests.Timeout:
        raise Trouble(unknown, "no answer from Kaggle in time") from None
    except requests.TooManyRedirects:
        text = "its interface is not at `api`: it points elsewhere, which is not followed"
        raise Trouble(Snag.DENIED, text) from None
    except requests.ConnectionError as error:
        unsent = type(getattr(error.args[0] if error.args else None, "reason", None)).__name__
        if unsent in ("NewConnectionError", "NameResolutionError", "SSLError"):
            raise Trouble(Snag.TRANSIENT, f"Kaggle cannot be reached ({unsent})") from None
        raise Trouble(unknown, "the connection to Kaggle broke off") from None
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"Kaggle's answer makes no sense ({type(error).__name__})"
        raise Trouble(unknown, text) from None


def _answered(error: requests.HTTPError, unknown: Snag) -> Trouble:
    """Read an error's status and text: from its body, where the status of the answer is good."""
    response = error.response
    if response is None:
        return Trouble(unknown, "Kaggle's answer makes no sense")
    status, text = response.status_code, ""
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        code, text = body.get("code"), str(body.get("message") or "")
        status = code if status < 400 and isinstance(code, int) else status
    detail = f"Kaggle answers {status}" + (f": {text}" if text else "")
    snag = Snag.TRANSIENT if status == 429 else Snag.DENIED
    if status == 401:
        detail = f"{NO_KEY} ({detail})"
    elif status >= 500 or status == 408:
        snag = unknown
    elif unknown is Snag.LOST and (said := refusal(text)).snag is not Snag.DENIED:
        snag = said.snag  # worded as in a good answer
    wait_s = _retry_after(response)
    return Trouble(snag, detail, status=status, retry_after_s=wait_s, worded=bool(text))


def _retry_after(response: requests.Response) -> float | None:
    """Read how long to wait: seconds, or a date, which is held against the answer's own."""
    text = response.headers.get("Retry-After", "")
    if text.isdigit():
        return float(text) or None
    try:
        until = parsedate_to_datetime(text)
        wait_s = (until - parsedate_to_datetime(response.headers["Date"])).total_seconds()
    except (ValueError, TypeError, KeyError):
        return None
    return wait_s if wait_s > 0 else None


def refusal(text: str) -> Trouble:
    """Say what Kaggle means by the text it refuses a push with. Nothing was started then."""
    text = " ".join(text.split())
    if SPENT.search(text):
        return Trouble(Snag.QUOTA, text)
    if BUSY.search(text):
        return Trouble(Snag.STOCKOUT, text)
    if PASSING.search(text):
        return Trouble(Snag.TRANSIENT, text)
    if PHONE.search(text):
        hint = "verify the account's phone number at https://www.kaggle.com/settings"
        return Trouble(Snag.DENIED, f"{text.rstrip('.')}; {hint}")
    return Trouble(Snag.DENIED, text)
