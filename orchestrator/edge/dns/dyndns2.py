"""Any provider that speaks `dyndns2`, the update protocol of routers.

One GET sets one address of a host that exists already; nothing can be read back or removed, so
what stands is asked of the DNS. Sending an address that is set already is abuse in this protocol
and ends in a blocked host: what was accepted is not sent again, and when nobody knows whether a
request arrived the DNS is asked for `settle_s` before it is repeated.

Answers as in the return codes of help.dyn.com, which the other providers follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

import httpx

from orchestrator.core.records import Action, Plan, Record
from orchestrator.edge.dns.base import ATTEMPT_S, DnsSettings, Finding, NotSent
from orchestrator.edge.dns.lookup import lookup
from orchestrator.errors import BadReply, NotAllowed, Throttled, Unreachable

PATH = "/nic/update"
BROKEN_S = 1800.0  # "911": their side is broken; the protocol asks for at least 30 minutes
MAX_REPLY = 2000
AGENT = "aion-orchestrator"  # the protocol refuses clients that do not say what they are

ACCEPTED = ("good", "nochg")
# All of these ask a human to change something; repeating them leads to a block.
STOPS = {
    "badauth": "user name or password is wrong",
    "!donator": "the account may not do this",
    "notfqdn": "the name is not a full host name",
    "nohost": "the name does not exist in this account; make it there first",
    "!yours": "the name belongs to another account",
    "numhost": "the name has too many addresses, or is a round robin",
    "abuse": "the name is blocked for too many updates; unblock it at the provider",
    "badagent": "this client is blocked",
    "badsys": "the system parameter is wrong",
}
WAITS = {
    "911": "the provider is broken or under maintenance",
    "dnserr": "the provider has trouble with its DNS",
}
_OK = 200
_DENIED = 401
_TOO_MANY = 429


class DynDns2:
    """One host of one account."""

    marks = False
    settle_s = 300.0
    rewrites = False

    def __init__(self, settings: DnsSettings) -> None:
        self._url = update_url(settings.api)
        self._resolver = settings.resolver
        self._auth = httpx.BasicAuth(settings.username, settings.token)
        self._accepted: dict[str, str] = {}  # type → content, as the provider last took it
        self._stopped = ""
        self._client = httpx.AsyncClient(
            timeout=ATTEMPT_S,
            follow_redirects=False,  # a redirect would carry the password elsewhere
            headers={"user-agent": AGENT},
        )

    async def read(self, name: str) -> Sequence[Record]:
        found = await lookup(name, resolver=self._resolver, timeout_s=ATTEMPT_S)
        for target in found:
            if self._accepted.get(target.type) == target.content:
                del self._accepted[target.type]  # the DNS shows it: from here on it can drift
        return [Record("", t.type, t.content) for t in found]

    async def apply(self, name: str, plan: Plan) -> None:
        """Send each changed address once; one already accepted is left to the DNS to show."""
        if self._stopped:
            raise NotAllowed(self._stopped)
        for change in plan.changes:
            after = change.after
            if change.action is Action.DELETE or after is None:
                raise BadReply("dyndns2 cannot remove an address")
            if self._accepted.get(after.type) == after.content and not plan.firm:
                continue
            self._accepted.pop(after.type, None)
            await self._send(name, after.content)
            self._accepted[after.type] = after.content

    async def check_token(self) -> list[Finding]:
        """Say what is known: the protocol has no question that changes nothing."""
        if self._stopped:
            return [Finding(False, self._stopped, "correct it, then restart aion")]
        if urlsplit(self._url).scheme != "https":
            return [Finding(False, "the password is sent without TLS", "use an https address")]
        return [Finding(True, "dyndns2 cannot be checked without writing; none was refused so far")]

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, name: str, address: str) -> None:
        try:
            reply = await self._client.get(
                self._url, params={"hostname": name, "myip": address}, auth=self._auth
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotSent(f"the dyndns2 provider could not be reached: {error}"[:300]) from error
        except httpx.TimeoutException as error:
            text = f"the dyndns2 provider did not answer within {ATTEMPT_S} s"
            raise Unreachable(text) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            text = f"the dyndns2 provider could not be reached: {error or type(error).__name__}"
            raise Unreachable(text[:300]) from error
        self._judge(reply, address)

    def _judge(self, reply: httpx.Response, address: str) -> None:
        words = reply.text[:MAX_REPLY].split()
        code = words[0].lower() if words else ""
        if words[:2] == ["good", "127.0.0.1"] and address != "127.0.0.1":
            code = "badagent"  # the polite form of ignoring a client
        if code in STOPS or reply.status_code == _DENIED:
            why = STOPS.get(code, STOPS["badauth"])
            self._stopped = f"dyndns2 answered {code or 'HTTP 401'}: {why}"
            raise NotAllowed(self._stopped)
        if code in WAITS:
            raise Throttled(f"dyndns2 answered {code}: {WAITS[code]}", BROKEN_S, reply.status_code)
        if reply.status_code == _TOO_MANY:
            header = reply.headers.get("retry-after", "")
            wait = float(header) if header.isascii() and header.isdigit() else BROKEN_S
            raise Throttled("the dyndns2 provider asks to wait", wait, reply.status_code)
        if reply.status_code != _OK or code not in ACCEPTED:
            shown = "".join(c if c.isprintable() else "?" for c in code[:40])
            what = f"HTTP {reply.status_code} {shown}".strip()
            raise BadReply(f"the dyndns2 provider answered {what}", reply.status_code)


def update_url(api: str) -> str:
    """Complete the configured address: `/nic/update` unless it has a path of its own."""
    parts = urlsplit(api)
    return urlunsplit(parts._replace(path=PATH)) if parts.path in ("", "/") else api
