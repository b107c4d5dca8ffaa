"""The tables and keys of `aion.toml`: names, types, defaults, and one line on each.

The texts are what editors show (`aion config schema`). What several keys say together is checked
in `checks`.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from backends.base import Credential
from orchestrator.settings.backuptables import STRICT, Backup
from orchestrator.settings.values import (
    Chat,
    Days,
    Duration,
    Host,
    Interval,
    IPv4,
    IPv6,
    Link,
    Listen,
    Models,
    Period,
    Resolver,
    TimeOfDay,
    TimeZone,
    Url,
    Window,
)

CONTROLS = (
    "https://1.1.1.1",
    "https://dns.google",
    "https://www.wikipedia.org",
    "https://github.com",
)
CLOUDFLARE = "https://api.cloudflare.com/client/v4"
Does = Literal[
    "check", "drain", "undrain", "start", "stop", "failover", "pause", "resume", "reload"
]


class Table(BaseModel):
    """A table of the file: nothing in it changes, nothing unknown is in it."""

    model_config = STRICT


class Server(Table):
    """Where the daemon listens and keeps its state."""

    listen: Listen = ("127.0.0.1", 8765)
    """Address of the daemon, "host:port"."""
    public_url: Url | None = None
    """How the world reaches the daemon; https."""
    database: str = "sqlite:///aion.db"
    """Relative to $STATE_DIRECTORY, else to ./var."""
    admin_token: Credential | None = None
    """Absent: made at first start, readable by its owner only."""
    metrics_listen: Listen | None = None
    """A listener of its own for /metrics; without it /metrics needs the admin token."""
    body_limit: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 2_000_000
    """Largest request body, in bytes."""
    egress_limit: Annotated[int, Field(ge=1)] | None = None
    """Warned of when what we send comes near to so many bytes a month."""


class Health(Table):
    """How often to look, and how much evidence moves a verdict."""

    interval: Interval = 10.0
    """Between probes of a backend that is up."""
    fast_interval: Interval = 2.0
    """Between probes in doubt."""
    down_interval: Interval = 30.0
    """Between probes of a backend that is down."""
    timeout: Interval = 4.0
    """How long a probe may take."""
    fall: Annotated[int, Field(ge=1, le=100)] = 3
    """Failures in a row until it is down."""
    rise: Annotated[int, Field(ge=1, le=100)] = 2
    """Successes in a row until it is up."""
    canary: Period = 300.0
    """Between one-token completions; "off" for none."""
    canary_timeout: Interval = 60.0
    """How long such a completion may take."""
    controls: list[Url] = list(CONTROLS)
    """Asked when something fails: is it us? An empty list: never."""


class BackendHealth(Table):
    """What differs from `[health]` for one backend."""

    interval: Interval | None = None
    fast_interval: Interval | None = None
    down_interval: Interval | None = None
    timeout: Interval | None = None
    fall: Annotated[int, Field(ge=1, le=100)] | None = None
    rise: Annotated[int, Field(ge=1, le=100)] | None = None
    canary: Period | None = None
    canary_timeout: Interval | None = None


class BackendDns(Table):
    """What a service's DNS name points at while this backend serves."""

    a: IPv4 | None = None
    """IPv4 address, or a list."""
    aaaa: IPv6 | None = None
    """IPv6 address, or a list."""
    cname: Host | None = None
    """A name, such as "<uuid>.cfargotunnel.com" of a named Cloudflare tunnel."""
    follow: bool = False
    """The address that its provider gives with each start; needs `gateway` in the service's."""


class Quota(Table):
    """What may be used in a period."""

    limit: Interval | None = None
    """Hours of use."""
    requests: Annotated[int, Field(ge=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    per: Literal["minute", "hour", "day", "week", "month"]
    resets: str | None = None
    """When a period begins: "saturday", "07:00", "saturday 07:00"; absent: Monday, midnight."""
    timezone: TimeZone = "UTC"
    """Whose calendar that is."""
    rolling: bool = False
    """What was used counts for one whole period, instead of until the next begins."""


class Cost(Table):
    """What it costs, in USD."""

    per_hour: Annotated[float, Field(ge=0)] = 0.0
    limit: Annotated[float, Field(ge=0)] | None = None
    """Never spend more; in all, not by the month."""
    expires: dt.date | None = None
    """From this day on nothing is left."""


class KeepAlive(Table):
    """Requests that keep a host awake which sleeps when nobody asks."""

    every: Interval
    """How often to ask; at least a minute apart."""
    url: Link | None = None
    """What to ask for; absent: the backend's own address."""
    between: Window | None = None
    """Only at these hours, such as "08:00-23:00"."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """Requests a month at most."""


class Backend(Table):
    """A place that can serve the model. Keys not named here belong to its kind."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """How it lives: "static", "api", "notebook", "fake"."""
    engine: str = "openai"
    """The server software that answers there."""
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Lower is preferred."""
    tier: Literal["free", "credit", "paid"] | None = None
    """What serving costs; absent: paid for `api`, else free."""
    models: Models = {}
    """Names of models, or a table of our name = theirs."""
    dns: BackendDns | None = None
    health: BackendHealth = BackendHealth()
    quota: Quota | None = None
    cost: Cost | None = None
    session: Interval | None = None
    """How long one session lasts."""
    warn_before: Interval = 2700.0
    """How long before a session's end to warn."""
    drain_margin: Duration = 300.0
    """With less time left than this it is no longer chosen, if another one can serve."""
    restart_url: Link | None = None
    """What to open to start it again."""
    start: Literal["auto", "manual"] | None = None
    """Who starts it."""
    idle_stop: Interval | None = None
    """Stop it after so long without work."""
    on_from: TimeOfDay | None = None
    """From then on it should be on, whoever needs it …"""
    on_until: TimeOfDay | None = None
    """… until then, by the timezone of the file; over midnight if that is earlier."""
    on_days: Days | None = None
    """On these days, such as "mon-fri" or ["saturday", "sunday"]; absent: every day."""
    keepalive: KeepAlive | None = None
    """For a host that sleeps when nobody asks."""


class Dns(Table):
    """The DNS name that follows the service."""

    provider: Literal["cloudflare", "dyndns2"]
    """Who keeps the zone."""
    zone: Host | None = None
    """The zone that holds the name."""
    name: Host
    """The name to keep."""
    token: Credential
    """Cloudflare: a token with Zone.DNS:Edit on this zone only. dyndns2: the password."""
    username: str = ""
    """dyndns2 only."""
    api: Url | None = None
    """Address of the provider's interface."""
    proxied: bool | None = None
    """Cloudflare only: through its proxy (the default there) or DNS alone."""
    ttl: Annotated[int, Field(ge=60, le=86400)] | None = None
    """Seconds; absent: the provider's own. Not with the proxy."""
    drift: Literal["respect", "correct"] = "respect"
    """What to do when somebody else changes the record."""
    gateway: Host | None = None
    """Where the name points when the active backend has no target of its own."""
    private: bool = False
    """Addresses that the world cannot reach may be published: a name for a home network."""
    resolver: Resolver = ""
    """dyndns2 only: the DNS server, "host" or "host:port", that is asked what the name holds."""


class Rotation(Table):
    """How a planned move takes its time."""

    lead: Duration = 420.0
    """How long before it is needed the next one has to be up."""
    verify: Duration = 60.0
    """How long the public name must answer well after the move."""
    drain: Duration = 120.0
    """How long the old one may finish what it does."""


class Service(Table):
    """A stable name that clients use."""

    backends: list[str] | None = None
    """Its pool; absent: every backend."""
    failback_after: Duration = 300.0
    """How long a better one must be healthy before going back to it."""
    rotation: Rotation = Rotation()
    dns: Dns | None = None


class Telegram(Table):
    """Alerts by a Telegram bot."""

    chat: Chat
    """The chat's number, or "@channel"."""
    token: Credential
    api: Url = "https://api.telegram.org"
    """Address of the Bot API."""


class Alerts(Table):
    """Whom to tell, and when."""

    telegram: Telegram | None = None
    urls: list[Credential] = []
    """Apprise URLs, each a credential, tried in this order."""
    remind_every: Interval = 7200.0
    escalate_after: Interval = 1800.0
    """A critical incident that nobody acknowledged goes to every channel."""
    quiet_hours: Window | None = None
    """Only what is critical rings."""
    operator_hours: Window | None = None
    """When a human can restart something."""


class Deadman(Table):
    """An outside service that misses us when we are gone."""

    ping_url: Credential
    every: Interval = 300.0


class Hook(Table):
    """What an outside scheduler may have done by calling `/hooks/NAME`: one job or one command."""

    token: Credential
    """What the scheduler sends; each hook its own."""
    job: str | None = None
    """A scheduled job, by its name in `aion job list`."""
    do: Does | None = None
    """Or a command."""
    backend: str | None = None
    """For check, drain, undrain, start, stop: which one."""
    service: str | None = None
    """For failover: which one."""
    to: str | None = None
    """For failover: to which backend; absent: the best other one."""
    for_: Interval | None = Field(default=None, alias="for")
    """For pause: how long; absent: until it is resumed."""
    in_url: bool = False
    """The token may stand in the address as `?token=…`, where logs and proxies see it."""
    get: bool = False
    """GET and HEAD do it too, for schedulers that cannot POST."""


class Client(Table):
    """Somebody who may use what is served."""

    key: Credential
    """What it sends as a bearer; each client its own."""


class Settings(BaseSettings):
    """The whole configuration, from the layers it is given: flags, environment, file."""

    model_config = SettingsConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    timezone: TimeZone = "UTC"
    """For quiet hours and schedules, such as "Europe/Lisbon"."""
    language: Literal["en", "pt"] = "en"
    """Of alerts and of the status page."""
    instance: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,31})?$")] = ""
    """Signs the DNS records. Absent: a name of its own that each new database makes up."""
    server: Server = Server()
    health: Health = Health()
    backends: dict[str, Backend] = {}
    services: dict[str, Service] = {}
    alerts: Alerts = Alerts()
    deadman: Deadman | None = None
    hooks: dict[str, Hook] = {}
    clients: dict[str, Client] = {}
    backups: dict[str, Backup] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # reads os.environ by itself
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the layers given to `of`, the first winning, and nothing else."""
        layers: tuple[dict[str, Any], ...] = init_settings()["layers"]
        return tuple(Layer(settings_cls, layer) for layer in layers)

    @classmethod
    def of(cls, *layers: dict[str, Any]) -> Self:
        """Validate the layers' merged tables. Raises pydantic's ValidationError."""
        given: dict[str, Any] = {"layers": layers}
        return cls(**given)


class Layer(PydanticBaseSettingsSource):
    """One source of settings: a tree of tables already read."""

    def __init__(self, settings_cls: type[BaseSettings], tables: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._tables = tables

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._tables.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Give every table, also those that are unknown: they are to be named."""
        return self._tables
