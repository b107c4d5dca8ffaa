"""What several keys say together: names, pools, health, what this version does not do yet.

Each check yields problems; a warning is a problem that does not stop the daemon. Nothing is
concluded from what was left out as wrong: see `Reading.sound`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from backends import CANARYLESS, ENGINES, KINDS, powered, registers
from orchestrator.settings import (
    backups,
    clientchecks,
    credentials,
    dnschecks,
    hookchecks,
    hours,
    keepalivechecks,
    launchchecks,
    quotas,
)
from orchestrator.settings.policies import (
    METERED_REQUESTS,
    MONTH_S,
    metered_host,
    policy,
    too_fast,
)
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted, is_secret_key, named, nearest
from orchestrator.settings.reading import Reading
from orchestrator.settings.schema import Backend
from orchestrator.settings.values import NAME, is_remote, split, written

_NOT_YET = {
    "session": "only what registers itself, or aion starts, ends with this",
    "start": "aion cannot start a backend of this kind",
    "idle_stop": "aion cannot stop a backend of this kind",
    "on_from": "aion cannot start a backend of this kind",
    "on_until": "aion cannot stop a backend of this kind",
    "on_days": "aion cannot start a backend of this kind",
}


def check(reading: Reading) -> None:
    """Add what is wrong to the reading's problems, and what surprises to its warnings."""
    groups = (_names, _server, _health, _backends, _services, _secrets)
    tables = (
        dnschecks,
        hookchecks,
        keepalivechecks,
        clientchecks,
        quotas,
        hours,
        launchchecks,
        backups,
    )
    for group in (*groups, *(table.check for table in tables)):
        reading.problems += group(reading)
    for notes in (_unused, _surprises, keepalivechecks.notes, backups.notes):
        reading.warnings += notes(reading)


def url_of(reading: Reading, name: str) -> str | None:
    """Give the address of a backend, if its kind has one."""
    options = reading.options.get(name)
    found: str | None = getattr(options, "url", None) or getattr(options, "base_url", None)
    return found


def _names(reading: Reading) -> Iterator[Problem]:
    settings = reading.settings
    tables = {
        "backends": reading.declared,
        "services": settings.services,
        "hooks": settings.hooks,
        "clients": settings.clients,
    }
    for table, names in tables.items():
        seen: dict[str, str] = {}
        for name in names:
            path: Path = (table, name)
            if NAME.fullmatch(name) is None:
                text = "a name is 1 to 63 of a-z 0-9 . _ - and begins with a letter or digit"
                yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
            if (first := seen.setdefault(name.lower(), name)) != name:
                yield Problem(
                    path, f"{dotted(path)}: the same name as `{named(first)}`", on_key=True
                )
    unread = reading.document.problems and not reading.document.data
    if not reading.declared and not unread and reading.sound(("backends",)):
        text = "there is no backend: add a table [backends.NAME], or run `aion init`"
        yield Problem(("backends",), text)


def _server(reading: Reading) -> Iterator[Problem]:
    server = reading.settings.server
    url = server.public_url
    if url and url.startswith("http:") and is_remote(url):
        path: Path = ("server", "public_url")
        yield Problem(
            path, f"{dotted(path)}: must begin with https://, for the admin token travels over it"
        )
    if server.metrics_listen and server.metrics_listen == server.listen and server.listen[1]:
        path = ("server", "metrics_listen")
        yield Problem(path, f"{dotted(path)}: the same address as server.listen")
    path = ("server", "database")
    if server.database.startswith(("postgres:", "postgresql:", "postgresql+")):
        text = "PostgreSQL comes later; this version keeps its state in SQLite (sqlite:///aion.db)"
        yield Problem(path, f"{dotted(path)}: {text}", secret=True)
    elif not server.database.startswith("sqlite:///") or not server.database[10:].strip("/"):
        yield Problem(path, f'{dotted(path)}: expected "sqlite:///" and a file name')
    elif set(server.database[10:]) & set("?#:\0") or not server.database.isprintable():
        yield Problem(path, f"{dotted(path)}: a file name without `?`, `#` and `:`")


def _health(reading: Reading) -> Iterator[Problem]:
    general = reading.settings.health
    text = "longer than the interval: doubt is looked into faster, not slower"
    if too_fast(general, general.interval) and reading.sound(("health",)):
        yield Problem(("health", "fast_interval"), f"health.fast_interval: {text}")
    for name, backend in reading.settings.backends.items():
        path: Path = ("backends", name, "health")
        found = policy(reading.settings, backend, url_of(reading, name))
        if too_fast(backend.health, found.interval_s) and reading.sound(path):
            path = (*path, "fast_interval")
            yield Problem(path, f"{dotted(path)}: {text} ({written(found.interval_s)})")


def _backends(reading: Reading) -> Iterator[Problem]:
    for name, backend in reading.settings.backends.items():
        path: Path = ("backends", name)
        if backend.engine not in ENGINES:
            text = f"unknown engine `{named(backend.engine)}`"
            hint = nearest(backend.engine, ENGINES) or f"; known are {', '.join(ENGINES)}"
            yield Problem((*path, "engine"), f"{dotted(path)}: {text}{hint}")
        elif registers(backend.kind, reading.options.get(name)) and backend.engine in CANARYLESS:
            text = f"a `{backend.kind}` proves itself by a completion, which `{backend.engine}`"
            text += " does not have; name the engine behind its agent"
            yield Problem((*path, "engine"), f"{dotted(path)}: {text}")
        url = url_of(reading, name) or ""
        if url and url.startswith("tcp:") != (backend.engine == "tcp"):
            text = 'an address tcp:// and engine = "tcp" belong together'
            yield Problem((*path, "url"), f"{dotted((*path, 'url'))}: {text}")
        environment = getattr(getattr(reading.options.get(name), "commands", None), "env", {})
        for variable in filter(is_secret_key, environment):
            text = "other processes can read an environment; hand a secret over by `stdin`"
            place: Path = (*path, "commands", "env", variable)
            yield Problem(place, f"{dotted(place)}: {text}", secret=True)
        for header, value in getattr(reading.options.get(name), "headers", {}).items():
            if isinstance(value, str) and is_secret_key(header):
                text = 'a secret is not written in the file; use { credential = "NAME" }'
                place = (*path, "headers", header)
                yield Problem(place, f"{dotted(place)}: {text}", secret=True)


def _services(reading: Reading) -> Iterator[Problem]:
    for name, service in reading.settings.services.items():
        path: Path = ("services", name, "backends")
        if service.backends is None:
            continue
        if not service.backends:
            yield Problem(
                path, f"{dotted(path)}: an empty pool; leave the key out to use every backend"
            )
        for number, backend in enumerate(service.backends):
            place = (*path, number)
            if backend not in reading.declared:
                hint = nearest(backend, reading.declared)
                text = f"no backend is called `{named(backend)}`{hint}"
                yield Problem(place, f"{dotted(path[:-1])}: {text}")
            elif backend in service.backends[:number]:
                yield Problem(
                    place, f"{dotted(path[:-1])}: `{named(backend)}` is in the pool twice"
                )


def _secrets(reading: Reading) -> Iterator[Problem]:
    """Check secrets by their form, without repeating them."""
    for path, value in reading.secrets.items():
        wrong = None
        if path == ("server", "admin_token"):
            wrong = credentials.weakness(value)
            name = getattr(reading.settings.server.admin_token, "credential", "")
            wrong = wrong and f"the admin token {wrong} {name}"
        elif path[:1] == ("backends",) and path[2:] == ("token",):
            wrong = credentials.weakness(value)
            name = reading.credentials[dotted(path)]
            wrong = wrong and f"the token to register with {wrong} {name}"
        elif path == ("deadman", "ping_url") and not _is_link(value):
            wrong = "the credential does not hold an address that begins with https://"
        elif path[:2] == ("alerts", "urls") and not _is_apprise(value):
            wrong = "the credential does not hold an Apprise URL, such as mailtos://…"
        elif path == ("alerts", "telegram", "token") and not _is_bot_token(value):
            wrong = "the credential does not hold a bot's token, such as 123456:ABC…"
        if wrong:
            yield Problem(path, f"{dotted(path)}: {wrong}")


def _is_link(value: str) -> bool:
    try:
        parts = split(value)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and " " not in value


def _is_apprise(value: str) -> bool:
    scheme, found, rest = value.partition("://")
    return bool(found and rest) and scheme.replace("+", "").replace("-", "").isalnum()


def _is_bot_token(value: str) -> bool:
    number, colon, rest = value.partition(":")
    return number.isdigit() and bool(colon) and rest.replace("-", "").replace("_", "").isalnum()


# ── warnings ────────────────────────────────────────────────────────────────────────────────────


def _unused(reading: Reading) -> Iterator[Problem]:
    """Name keys that are valid and do nothing yet: nothing is ignored in silence."""
    for name, backend in reading.settings.backends.items():
        if backend.kind not in KINDS:
            continue
        options = reading.options.get(name)
        does = dict.fromkeys(_NOT_YET, powered(backend.kind, options))
        does["session"] |= registers(backend.kind, options)
        for key, text in _NOT_YET.items():
            if does.get(key):
                continue
            if getattr(backend, key) not in {None, "manual"}:
                path: Path = ("backends", name, key)
                yield Problem(path, f"{dotted(path)}: {text}", on_key=True)


def _surprises(reading: Reading) -> Iterator[Problem]:
    settings = reading.settings
    controls = settings.health.controls
    path: Path = ("health", "controls")
    if len(controls) == 1:
        text = "one control alone cannot tell us from it: two that fail say that it is us"
        yield Problem(path, f"{dotted(path)}: {text}")
    elif controls and not any(_is_literal(url) for url in controls):
        yield Problem(
            path,
            f"{dotted(path)}: none is an IP address, so a failing resolver looks like no network",
        )
    for name, backend in settings.backends.items():
        yield from _backend_surprises(reading, name, backend)


def _backend_surprises(reading: Reading, name: str, backend: Backend) -> Iterator[Problem]:
    url = url_of(reading, name)
    path: Path = ("backends", name)
    found = policy(reading.settings, backend, url)
    month = int(MONTH_S / found.interval_s)
    if metered_host(url) and month > METERED_REQUESTS:
        text = (
            f"probes alone make {month} requests a month; the free tunnel allows {METERED_REQUESTS}"
        )
        yield Problem((*path, "health", "interval"), f"{dotted(path)}: {text}")
    if backend.engine in CANARYLESS and backend.health.canary not in (None, "off"):
        text = f"the engine `{backend.engine}` has no completions, so there is no canary"
        yield Problem((*path, "health", "canary"), f"{dotted(path)}: {text}")
    has_key = any(found[:2] == path for found in reading.secrets)
    if url and has_key and not url.startswith("https:") and is_remote(url):
        yield Problem(
            (*path, "url"),
            f"{dotted(path)}: its key crosses the internet unencrypted; use https://",
        )


def _is_literal(url: str) -> bool:
    try:
        ipaddress.ip_address(split(url).hostname or "")
    except ValueError:
        return False
    return True
