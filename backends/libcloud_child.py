"""Starts, stops and asks one machine by Apache Libcloud, in a process of its own.

What the drivers raise is read by the words in it, for they raise all sorts of things: AWS's error
codes (docs.aws.amazon.com, "Error codes for the Amazon EC2 API"), Azure's ("Resolve errors for SKU
not available", "Resource quota errors").
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from orchestrator.childside import pieces, redact, serve

TAG: Final = "aion"
INSTALL: Final = "Apache Libcloud is not installed; fix: pip install 'aion-orchestrator[libcloud]'"
STOCKOUT: Final = re.compile(
    r"Insufficient(Instance|Host|ReservedInstance)?Capacity|SkuNotAvailable"
    r"|(Zonal|Overconstrained)?AllocationFailed|ZONE_RESOURCE_POOL_EXHAUSTED|No valid host"
)
QUOTA: Final = re.compile(
    r"InstanceLimitExceeded|VcpuLimitExceeded|MaxSpotInstanceCountExceeded|(?i:quota)"
)
DENIED: Final = re.compile(
    r"UnauthorizedOperation|AuthFailure|InvalidClientTokenId|SignatureDoesNotMatch|OptInRequired"
    r"|AccessDenied|AuthorizationFailed|InvalidCredsError"
)
TRANSIENT: Final = re.compile(
    r"RequestLimitExceeded|Throttling|TooManyRequests|IncorrectInstanceState|IncorrectSpotRequest"
)
GONE: Final = re.compile(r"InvalidInstanceID")
GONE_STATE: Final = "terminated"
TOO_MANY, BROKEN = 429, 500
# EC2's driver calls every state that it does not list "unknown", a stopped one too; what its
# interface said is in `extra`.
STATES: Final = {
    "running": "on",
    "pending": "starting",
    "starting": "starting",
    "provisioning": "starting",
    "staging": "starting",
    "repairing": "on",
    "rebooting": "on",
    "migrating": "on",
    "updating": "on",
    "normal": "on",
    "reconfiguring": "on",
    "error": "on",  # whatever it is, it may cost
    "stopping": "stopping",
    "suspending": "stopping",
    "shutting-down": "stopping",
    "stopped": "off",
    "suspended": "off",
    "paused": "on",
    "terminated": "off",
}
STARTS: Final = ("start_node", "ex_start_node", "ex_power_on_node", "ex_start")
STOPS: Final = ("stop_node", "ex_stop_node", "ex_power_off_node", "ex_shutdown_node", "ex_stop")
POOL: Final = re.compile(r"HTTPS?ConnectionPool\(host='([^']*)', port=(\d+)\)")
REASONS: Final = (
    (re.compile(r"resolve"), "its name cannot be resolved"),
    (re.compile(r"refused"), "connection refused"),
    (re.compile(r"(?i)timed? ?out"), "timed out"),
    (re.compile(r"(?i)certificate|SSL"), "TLS"),
)


ELSE: Final = "programs of yours can, with kind `command`"


class Refused(Exception):
    """What we ourselves found to be in the way: a snag, and one line."""


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked of the machine; answers in JSON whatever happens."""
    account = _account(payload["account"])
    secrets = frozenset().union(*(pieces(str(value)) for value in account.values()))
    progress = {"wrote": False}
    try:
        found = _carry_out(payload, account, progress)
    except Refused as refused:
        found = {"snag": refused.args[0], "detail": refused.args[1]}
    except Exception as error:  # noqa: BLE001 - drivers raise whatever they like
        found = refusal(error, wrote=progress["wrote"])
    return {key: redact(v, secrets) if isinstance(v, str) else v for key, v in found.items()}


def _carry_out(
    payload: Mapping[str, Any], account: Mapping[str, Any], progress: dict[str, bool]
) -> dict[str, Any]:
    driver = connected(payload, account)
    for what, names in (("start", STARTS), ("stop", STOPS)):
        if not _methods(driver, names):
            raise Refused(
                "denied", f"Apache Libcloud cannot {what} machines of {driver.name}; {ELSE}"
            )
    node = _node(driver, str(payload["node"]))
    if node is None:
        detail = f"there is no machine {payload['node']} there"
        return {
            "phase": "off",
            "snag": "denied" if payload["ask"] == "start" else "",
            "detail": detail,
        }
    tags = payload["tag"] and _has_tags(driver)
    if payload["ask"] == "start":
        return _start(driver, node, payload["label"], progress, tags=tags)
    if payload["ask"] == "stop":
        return _stop(driver, node, payload["label"], progress, tags=tags)
    return _seen(node, tags=tags)


def _account(text: str) -> dict[str, Any]:
    """Read the driver's secret arguments; a text that is no JSON object is its key."""
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {"key": text}


def connected(payload: Mapping[str, Any], account: Mapping[str, Any]) -> Any:
    """Make the provider's driver. Raises Refused."""
    try:
        from libcloud.compute.providers import get_driver  # noqa: PLC0415 - it may not be there
    except ImportError:
        raise Refused("denied", INSTALL) from None
    made = _driver(get_driver, str(payload["provider"]))
    keys = {**payload["arguments"], **account}
    for name in ("region", "host", "port"):
        if payload[name] is not None:
            keys[name] = payload[name]
    if payload["host"] is not None:
        keys["secure"] = payload["secure"]
    _check(made, account)
    try:
        return _made(made, keys, payload)
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        text = f"its driver does not take these arguments: {_words(error)}"
        raise Refused("denied", text) from None


def _made(made: Any, keys: Mapping[str, Any], payload: Mapping[str, Any]) -> Any:
    """Make a driver; one that takes no address is given it afterwards."""
    try:
        return made(**keys)
    except TypeError:
        if payload["host"] is None:
            raise
    own = {name: value for name, value in keys.items() if name not in ("host", "port", "secure")}
    driver = made(**own)
    there = driver.connection
    there.host, there.port, there.secure = payload["host"], payload["port"], payload["secure"]
    there.connect()
    return driver


def _driver(get_driver: Any, name: str) -> Any:
    """Find a provider's driver by its name. Raises Refused."""
    try:
        return get_driver(name)
    except AttributeError:
        from libcloud.compute.providers import DRIVERS  # noqa: PLC0415 - as above

        near = difflib.get_close_matches(name.replace("_", ""), DRIVERS, 1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise Refused("denied", f"Apache Libcloud knows no provider `{name}`{hint}") from None
    except Exception as error:  # noqa: BLE001 - one that was retired raises what it likes
        raise Refused("denied", f"Apache Libcloud: {_words(error)}") from None


def _check(made: Any, account: Mapping[str, Any]) -> None:
    """See that there is what every request is signed with. Raises Refused.

    A driver that is made without its secret says so only when it signs, in words that tell nobody.
    """
    empty = [name for name, value in account.items() if value in (None, "")]
    if empty or not account:
        raise Refused("denied", f"`account` has no {empty[0] if empty else 'key'}")
    bases = [base.__name__ for base in getattr(made.connectionCls, "__mro__", ())]
    if "ConnectionUserAndKey" in bases and set(account) == {"key"}:
        form = '{"key": "…", "secret": "…"}'
        raise Refused("denied", f"`account` has no secret: write it as {form}")


def _node(driver: Any, name: str) -> Any:
    """Find the machine by its id, else by its name; None if there is none. Raises Refused."""
    try:
        ids = {"ex_node_ids": [name]} if name.startswith("i-") else {}
        nodes = driver.list_nodes(**ids)
    except Exception as error:
        if GONE.search(str(error)):
            return None
        raise
    found = [one for one in nodes if str(one.id) == name] or [
        one for one in nodes if one.name == name
    ]
    alive = [one for one in found if _state(one) != GONE_STATE]
    if len(alive) > 1:
        raise Refused("denied", f"{len(alive)} machines are called {name}; give an id as `node`")
    return alive[0] if alive else None


def _state(node: Any) -> str:
    raw, state = (node.extra or {}).get("status"), str(node.state).lower()
    said = str(raw).lower() if isinstance(raw, str) and raw.lower() in STATES else ""
    if said == GONE_STATE and state != "unknown":  # at Google a machine that is off is called so
        return state
    return said or state


def _seen(node: Any, *, tags: bool) -> dict[str, Any]:
    """Say how the machine is."""
    state = _state(node)
    phase = STATES.get(state)
    if phase is None:
        return {"snag": "transient", "detail": f"its state is {state}"}
    public, private = [*(node.public_ips or []), None][0], [*(node.private_ips or []), None][0]
    found = {"phase": phase, "snag": "", "public": public, "private": private}
    if tags and phase != "off":
        found["launch"] = _label(node)
    return found


def _label(node: Any) -> str:
    given = (node.extra or {}).get("tags")
    return str(given.get(TAG) or "") if isinstance(given, dict) else ""


def _has_tags(driver: Any) -> bool:
    """Say whether this driver tags one machine with a mapping, as EC2's does."""
    make = getattr(driver, "ex_create_tags", None)
    return make is not None and list(inspect.signature(make).parameters)[:2] == ["resource", "tags"]


def _start(
    driver: Any, node: Any, label: str, progress: dict[str, bool], *, tags: bool
) -> dict[str, Any]:
    now = _seen(node, tags=tags)
    if now.get("phase") in ("on", "starting"):
        if not tags or now["launch"] == label:
            return now
        whose = f"as {now['launch']}" if now["launch"] else "and somebody else started it"
        return {"snag": "transient", "detail": f"it runs already, {whose}"}
    if now.get("phase") != "off":
        return {"snag": "transient", "detail": f"it cannot be started now: it is {_state(node)}"}
    if tags:
        driver.ex_create_tags(node, {TAG: label})
    progress["wrote"] = True
    try:
        _call(driver, STARTS, node)
    except Exception as error:
        known = error.args[0] if isinstance(error, Refused) else refusal(error, wrote=True)["snag"]
        if tags and known != "lost":
            _untag(driver, node, label)
        raise
    return {"phase": "starting", "snag": "", "launch": label if tags else ""}


def _stop(
    driver: Any, node: Any, label: str, progress: dict[str, bool], *, tags: bool
) -> dict[str, Any]:
    now = _seen(node, tags=tags)
    if now.get("phase") in ("off", "stopping"):
        return {"phase": now["phase"], "snag": ""}
    had = now.get("launch", "")
    if tags and label and had != label:
        whose = f"it runs as {had}, which is left alone" if had else "somebody else started it"
        return {"phase": "off", "snag": "", "detail": whose}
    progress["wrote"] = True
    _call(driver, STOPS, node)
    if tags and had:
        _untag(driver, node, had)
    return {"phase": "stopping", "snag": ""}


def _methods(driver: Any, names: tuple[str, ...]) -> list[Any]:
    """List the methods of these names that this driver has of its own."""
    from libcloud.compute.base import NodeDriver  # noqa: PLC0415 - as above

    base = {name: getattr(NodeDriver, name, None) for name in names}
    own = [name for name in names if getattr(type(driver), name, None) is not base[name]]
    return [getattr(driver, name) for name in own]


def _call(driver: Any, names: tuple[str, ...], node: Any) -> None:
    """Call the first of these that this driver has. Raises Refused."""
    for method in _methods(driver, names):
        with suppress(NotImplementedError):
            if method(node) is False:
                raise Refused("lost", "its provider did not say that it was done")
            return
    raise Refused("denied", f"Apache Libcloud cannot do that with {driver.name}; {ELSE}")


def _untag(driver: Any, node: Any, label: str) -> None:
    """Take the label off; that it stays is no harm as long as nobody else starts the machine."""
    with suppress(Exception):
        if hasattr(driver, "ex_delete_tags"):
            driver.ex_delete_tags(node, {TAG: label})
        else:
            driver.ex_create_tags(node, {TAG: ""})


# ── what went wrong ─────────────────────────────────────────────────────────────────────────────


def refusal(error: Exception, *, wrote: bool) -> dict[str, Any]:
    """Read what a driver raised. `wrote`: it was asked to change something."""
    words = _words(error)
    named = f"{type(error).__name__} {words}"
    code = getattr(error, "code", None)
    code = code if isinstance(code, int) else 0
    pairs = ((STOCKOUT, "stockout"), (QUOTA, "quota"), (DENIED, "denied"), (TRANSIENT, "transient"))
    snag = next((snag for pattern, snag in pairs if pattern.search(named)), "")
    if not snag and code == TOO_MANY:
        snag = "transient"
    if not snag and BROKEN > code > 0:
        snag = "denied"
    found: dict[str, Any] = {"snag": snag or ("lost" if wrote else "transient"), "detail": words}
    if (wait_s := getattr(error, "retry_after", 0)) and found["snag"] == "transient":
        found["retry_after_s"] = wait_s
    return found


def _words(error: BaseException) -> str:
    text = str(getattr(error, "value", "") or getattr(error, "message", "") or error)
    if (pool := POOL.search(text)) is not None:  # else the whole signed request is told
        why = next((words for pattern, words in REASONS if pattern.search(text)), "no connection")
        return f"{pool[1]}:{pool[2]} cannot be reached: {why}"
    return " ".join(text.split())[:300] or type(error).__name__


if __name__ == "__main__":
    serve(main)
