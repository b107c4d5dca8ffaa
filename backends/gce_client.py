"""Google Compute Engine through its own client library. Imported by `gce_child` only: 100 MB.

Every request is made once (`retry=None`): what may be repeated is decided by who knows the state.
Operations are waited for through a client of our own, since the one that comes with an operation
forgets the configured address and would ask Google itself.
"""

from __future__ import annotations

import gc
import json
import re
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final

import google.auth
import google.auth.exceptions
import requests.exceptions
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.oauth2 import service_account
from google.protobuf.json_format import ParseError

from backends import gce_words
from backends.gce_words import ENDED, LABEL, Machine, Trouble
from orchestrator.core.powering import Snag

gc.disable()  # nothing of it is garbage: a quarter of the 1.1 s that it takes
# Its 160,000 generated lines are not for the type checker.
gce: Any = import_module("google.cloud.compute_v1")
gc.enable()
SCOPES: Final = ("https://www.googleapis.com/auth/compute",)
API: Final = "https://compute.googleapis.com"
READ_S, WRITE_S, SETTLE_S = 15.0, 25.0, 20.0
PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
LINKS: Final = "https://www.googleapis.com/compute/v1"
# An error whose body is JSON, and not in Google's form, breaks the library itself.
STRANGE: Final = (ValueError, TypeError, AttributeError, KeyError)
_REQUEST: Final = re.compile(r"^[A-Z]+ https?://\S+: ")  # what the library writes before a message


def credentials(account: str, api: str) -> Any:
    """Read a service account's key; without one, what this machine has of its own."""
    made = _key(account) if account else _own()
    if api != API:
        # In the background google-auth asks iamcredentials.googleapis.com in which places a token
        # is good; where another `api` is configured, nobody else is to be asked.
        kind: Any = type(made)
        kind._is_regional_access_boundary_lookup_required = lambda _: False  # noqa: SLF001 - no other way
    return made


def _own() -> Any:
    try:
        return google.auth.default(scopes=SCOPES)[0]
    except google.auth.exceptions.GoogleAuthError:
        text = "no credential: set `account`, or run where Google gives one"
        raise Trouble(Snag.DENIED, text) from None


def _key(account: str) -> Any:
    kind: Any = service_account.Credentials
    try:
        return kind.from_service_account_info(json.loads(account), scopes=SCOPES)
    except (
        google.auth.exceptions.GoogleAuthError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ):
        text = "`account` is not the JSON key of a service account"
        raise Trouble(Snag.DENIED, text) from None


class Compute:
    """One project, as far as one machine needs it. Whatever goes wrong is a `Trouble`.

    `settle_s`: how long a small operation is waited for.
    """

    def __init__(self, project: str, account: str, api: str, settle_s: float = SETTLE_S) -> None:
        self.project, self._settle_s = project, settle_s
        self._given = {
            "credentials": credentials(account, api),
            "client_options": ClientOptions(api_endpoint=api),
        }
        self._clients: dict[type, Any] = {}

    def _client(self, kind: type) -> Any:
        if kind not in self._clients:
            self._clients[kind] = kind(**self._given)
        return self._clients[kind]

    def _ask(
        self, call: Callable[..., Any], *, writes: bool, timeout_s: float, **request: Any
    ) -> Any:
        try:
            given = {"project": self.project, **request}
            return call(request=given, timeout=timeout_s, retry=None)
        except exceptions.GoogleAPICallError as error:
            raise _read(error, writes=writes) from None
        except google.auth.exceptions.TransportError:
            raise Trouble(Snag.TRANSIENT, "the credential's own server does not answer") from None
        except google.auth.exceptions.GoogleAuthError as error:
            text = error.args[0] if error.args else type(error).__name__
            raise Trouble(Snag.DENIED, f"the credential is refused: {text}") from None
        except (requests.exceptions.RequestException, ParseError, *STRANGE) as error:
            sent = not _never_sent(error)
            how = "no answer that could be read" if sent else "it could not be reached"
            snag = Snag.LOST if writes and sent else Snag.TRANSIENT
            raise Trouble(snag, f"{how} ({type(error).__name__})") from None

    def _read(self, call: Callable[..., Any], **request: Any) -> Any:
        return self._ask(call, writes=False, timeout_s=READ_S, **request)

    def _write(self, call: Callable[..., Any], **request: Any) -> Any:
        return self._ask(call, writes=True, timeout_s=WRITE_S, **request)

    # ── what is there ───────────────────────────────────────────────────────────────────────────

    def instance(self, zone: str, name: str) -> Any:
        """Read one instance as Google describes it."""
        return self._read(self._client(gce.InstancesClient).get, zone=zone, instance=name)

    def labelled(self, zone: str) -> list[Machine]:
        """List the machines of a zone that carry a label of a launch, whosever."""
        client = self._client(gce.InstancesClient)
        found = self._read(client.list, zone=zone, filter=f"labels.{LABEL}:*")
        return [machine(zone, one) for one in self._pages(found)]

    def _pages(self, pager: Any) -> Iterator[Any]:
        try:  # the pages after the first are asked for here
            yield from pager
        except exceptions.GoogleAPICallError as error:
            raise _read(error, writes=False) from None
        except requests.exceptions.RequestException as error:
            raise Trouble(Snag.TRANSIENT, f"no answer ({type(error).__name__})") from None

    def last_operations(self, zone: str, link: str) -> list[Any]:
        """List what was done to an instance, the last first."""
        wanted = _path(link)
        found = self._operations(zone, f'targetLink="{link}"', 10)
        return [one for one in found if _path(one.target_link) == wanted]

    def last_inserts(self, zone: str) -> list[Any]:
        """List what was lately made in a zone, or was to be made there, the last first."""
        found = self._operations(zone, 'operationType="insert"', 20)
        return [one for one in found if one.operation_type == "insert"]

    def _operations(self, zone: str, given: str, most: int) -> list[Any]:
        pager = self._read(
            self._client(gce.ZoneOperationsClient).list,
            zone=zone,
            filter=given,
            order_by="creationTimestamp desc",
            max_results=most,
        )
        page = next(iter(pager.pages), None)
        items = [] if page is None else page.items
        return sorted(items, key=lambda one: one.insert_time, reverse=True)

    def link(self, zone: str, name: str) -> str:
        """Name an instance as operations do."""
        return f"{LINKS}/projects/{self.project}/zones/{zone}/instances/{name}"

    def inserting(self, zone: str) -> list[str]:
        """List the machines whose making is under way: they may not be seen yet."""
        client = self._client(gce.ZoneOperationsClient)
        pager = self._read(
            client.list, zone=zone, filter='(operationType="insert") (status!="DONE")'
        )
        return [
            str(one.target_link).rpartition("/")[2]
            for one in self._pages(pager)
            if one.operation_type == "insert" and one.status != gce.Operation.Status.DONE
        ]

    def template(self, name: str) -> Any:
        """Read an instance template."""
        return self._read(self._client(gce.InstanceTemplatesClient).get, instance_template=name)

    # ── what is done ────────────────────────────────────────────────────────────────────────────

    def limit(self, zone: str, one: Any, seconds: int | None) -> None:
        """Set after how long a stopped instance is stopped again by itself; None: never."""
        wanted = gce.Scheduling(one.scheduling)
        if seconds is None:
            del wanted.max_run_duration
            if wanted.provisioning_model != "SPOT":
                del wanted.instance_termination_action
        else:
            wanted.max_run_duration = gce.Duration(seconds=seconds)
            wanted.instance_termination_action = "STOP"
        done = self._write(
            self._client(gce.InstancesClient).set_scheduling_unary,
            zone=zone,
            instance=one.name,
            scheduling_resource=wanted,
        )
        self.settle(zone, done, one.name, lambda found: limit_of(found.scheduling) == seconds)

    def label(self, zone: str, one: Any, launch: str) -> None:
        """Put the label of a launch on an instance, among those that it has."""
        done = self._relabel(zone, one, {LABEL: launch})
        self.settle(zone, done, one.name, lambda found: found.labels.get(LABEL) == launch)

    def ended(self, zone: str, one: Any) -> None:
        """Let an instance's label say that its launch is over."""
        if LABEL in one.labels:
            self._relabel(zone, one, {ENDED: one.labels[LABEL]})

    def _relabel(self, zone: str, one: Any, given: dict[str, str]) -> Any:
        kept = {key: value for key, value in one.labels.items() if key not in {LABEL, ENDED}}
        body = gce.InstancesSetLabelsRequest(
            label_fingerprint=one.label_fingerprint, labels={**kept, **given}
        )
        return self._write(
            self._client(gce.InstancesClient).set_labels_unary,
            zone=zone,
            instance=one.name,
            instances_set_labels_request_resource=body,
        )

    def start(self, zone: str, name: str) -> Any:
        """Have a stopped instance started; returns the operation."""
        client = self._client(gce.InstancesClient)
        return self._write(client.start_unary, zone=zone, instance=name)

    def resume(self, zone: str, name: str) -> Any:
        """Have a suspended instance go on; returns the operation."""
        client = self._client(gce.InstancesClient)
        return self._write(client.resume_unary, zone=zone, instance=name)

    def stop(self, zone: str, name: str) -> Any:
        """Have an instance stopped; returns the operation."""
        client = self._client(gce.InstancesClient)
        return self._write(client.stop_unary, zone=zone, instance=name)

    def delete(self, zone: str, name: str) -> Any:
        """Have an instance deleted; returns the operation."""
        client = self._client(gce.InstancesClient)
        return self._write(client.delete_unary, zone=zone, instance=name)

    def create(
        self, zone: str, template: Any, name: str, seconds: int | None, *, spot: bool
    ) -> Any:
        """Have a machine made by a template, with the label of its launch; returns the operation.

        What is given beside a template replaces the whole of that part, so the rest is repeated.
        """
        part = template.properties
        scheduling = gce.Scheduling(part.scheduling)
        if spot:
            scheduling.provisioning_model = "SPOT"
            scheduling.preemptible = True
            scheduling.automatic_restart = False
            scheduling.on_host_maintenance = "TERMINATE"
        if seconds is not None:
            scheduling.max_run_duration = gce.Duration(seconds=seconds)
        if spot or seconds is not None or scheduling.provisioning_model == "SPOT":
            scheduling.instance_termination_action = "DELETE"
        body = gce.Instance(name=name, labels={**part.labels, LABEL: name}, scheduling=scheduling)
        project = f"{LINKS}/projects/{self.project}"
        return self._write(
            self._client(gce.InstancesClient).insert_unary,
            zone=zone,
            source_instance_template=template.self_link
            or f"{project}/global/instanceTemplates/{template.name}",
            instance_resource=body,
        )

    def settle(self, zone: str, operation: Any, name: str, holds: Callable[[Any], bool]) -> None:
        """Wait until a small operation on an instance is over.

        Where that cannot be seen, `holds` says by the instance whether it was done. Raises what it
        failed by, or that it lasts.
        """
        if self.over(zone, operation, self._settle_s, strict=True) or holds(
            self.instance(zone, name)
        ):
            return
        raise Trouble(Snag.TRANSIENT, f"{operation.operation_type} takes too long")

    def over(self, zone: str, operation: Any, within_s: float, *, strict: bool = False) -> bool:
        """Wait for an operation, so long at most, and say whether it is over.

        Raises what it failed by; with `strict` also that we may not look at it, which says nothing
        of the operation itself.
        """
        if operation.status != gce.Operation.Status.DONE:
            try:
                operation = self._end_of(zone, operation, within_s, patient=strict)
            except Trouble as trouble:
                if strict and trouble.snag is Snag.DENIED:
                    raise
                return False
        if operation.status != gce.Operation.Status.DONE:
            return False
        if (failed := why_failed(operation)) is not None:
            raise failed
        return True

    def _end_of(self, zone: str, operation: Any, within_s: float, *, patient: bool) -> Any:
        """Read an operation at its end, or as it is after that time. Raises `Trouble`.

        `wait` promises nothing: where Google is busy it answers before the end, even at once
        (reference of `zoneOperations.wait`). Then it is looked at again and again.
        """
        client = self._client(gce.ZoneOperationsClient)
        asked = {"writes": False, "zone": zone, "operation": operation.name}
        try:
            found = self._ask(client.wait, timeout_s=within_s, **asked)
        except Trouble as trouble:
            if not trouble.gone and (trouble.snag is Snag.DENIED or not patient):
                raise
            found = operation
        pause_s, left_s = PAUSE_S, within_s / 2.0
        while found.status != gce.Operation.Status.DONE and left_s > 0.0:
            threading.Event().wait(pause_s)
            left_s, pause_s = left_s - pause_s, min(2.0 * pause_s, LONGEST_PAUSE_S)
            try:
                found = self._ask(client.get, timeout_s=READ_S, **asked)
            except Trouble as trouble:
                if trouble.gone:  # it is not kept for ever
                    return operation
                if trouble.snag is Snag.DENIED:
                    raise
        return found

    # ── what may be done ────────────────────────────────────────────────────────────────────────

    def may(self, zone: str, name: str, permissions: list[str]) -> set[str]:
        """Say which of these permissions the credential has on an instance."""
        body = gce.TestPermissionsRequest(permissions=permissions)
        said = self._read(
            self._client(gce.InstancesClient).test_iam_permissions,
            zone=zone,
            resource=name,
            test_permissions_request_resource=body,
        )
        return set(said.permissions)

    def may_use(self, template: str, permissions: list[str]) -> set[str]:
        """Say which of these permissions the credential has on a template."""
        body = gce.TestPermissionsRequest(permissions=permissions)
        said = self._read(
            self._client(gce.InstanceTemplatesClient).test_iam_permissions,
            resource=template,
            test_permissions_request_resource=body,
        )
        return set(said.permissions)

    def quotas(self, region: str | None) -> dict[str, tuple[float, float]]:
        """Read the quotas of a region, or of all together: used and limit, by their names."""
        if region is None:
            said = self._read(self._client(gce.ProjectsClient).get)
        else:
            said = self._read(self._client(gce.RegionsClient).get, region=region)
        return {one.metric: (one.usage, one.limit) for one in said.quotas}


def _path(link: str) -> str:
    """Give what is behind the host of a link, which Google writes in more than one way."""
    return str(link).rpartition("/projects/")[2]


def machine(zone: str, one: Any) -> Machine:
    """Take what matters of an instance as Google describes it."""
    networks = list(one.network_interfaces)
    external = [
        found
        for network in networks
        for found in (
            *(config.nat_i_p for config in network.access_configs),
            *(config.external_ipv6 for config in network.ipv6_access_configs),
        )
        if found
    ]
    internal = [found for one in networks for found in (one.network_i_p, one.ipv6_address) if found]
    scheduling = one.scheduling
    return Machine(
        zone,
        one.name,
        one.status,
        dict(one.labels),
        next(iter(external), ""),
        next(iter(internal), ""),
        scheduling.preemptible or scheduling.provisioning_model == "SPOT",
        limit_of(scheduling),
    )


def limit_of(scheduling: Any) -> int | None:
    """Say after how many seconds an instance is ended by itself; None: never."""
    return int(scheduling.max_run_duration.seconds) if "max_run_duration" in scheduling else None


def why_failed(operation: Any) -> Trouble | None:
    """Say what an operation that is over failed by; None if it did not."""
    errors = [(one.code, one.message) for one in operation.error.errors]
    status = int(operation.http_error_status_code or 0)
    if not errors and status < 400:  # noqa: PLR2004
        return None
    if not errors:
        errors = [("", operation.http_error_message)]
    return gce_words.failed(errors, status)


def _read(error: exceptions.GoogleAPICallError, *, writes: bool) -> Trouble:
    reasons = [str(one.get("reason", "")) for one in error.errors if isinstance(one, dict)]
    reasons += [str(getattr(error, "reason", "") or "")]
    response = error.response
    wait = response.headers.get("retry-after", "") if response is not None else ""
    return gce_words.refused(
        int(error.code or 500),
        [one for one in reasons if one],
        _REQUEST.sub("", str(error.message)),
        writes=writes,
        retry_after_s=float(wait) if wait.isdigit() else None,
    )


def _never_sent(error: Exception) -> bool:
    """Say whether a request certainly did not reach the other side."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    inner = getattr(error.args[0], "reason", None) if error.args else None
    name = type(inner).__name__  # urllib3's own, which is not ours to import
    return name in {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError"}
