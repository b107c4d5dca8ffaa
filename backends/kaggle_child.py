"""Asks Kaggle, in a process of its own: how a kernel is, have it run, stop it, and for doctor.

In: `{"do": "status" | "start" | "stop" | "checks", "api", "auth", "owner", "slug", …}`. Out: what
`backends.kaggle` makes a report of: `phase`, `launch`, `detail`, `snag`, `retry_after_s`, `queued`,
`quota`. LOST is said only where something was sent that may have been done.

Two things of Kaggle's interface decide how this goes. It gives no id of a run that was pushed, so
such a run cannot be cancelled from outside; it ends when its code does, or with its kernel. And of
a kernel that is not there it says that it may not be seen, as of one that is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any, Final

from kagglesdk.kernels.services.kernels_api_service import KernelsApiClient
from kagglesdk.kernels.types.kernels_api_service import (
    ApiCancelKernelSessionRequest,
    ApiDeleteKernelRequest,
    ApiGetAcceleratorQuotaStatisticsRequest,
    ApiGetKernelRequest,
    ApiGetKernelSessionStatusRequest,
    ApiListKernelsRequest,
    ApiSaveKernelRequest,
)
from kagglesdk.kernels.types.kernels_enums import (
    KernelExecutionType,
    KernelsListViewType,
    KernelWorkerStatus,
)

from backends.ipynb import launch_of
from backends.kaggle_client import Client, Trouble, asked, refusal
from orchestrator.childside import serve
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag

PAGE: Final = 100
NO_METHOD: Final = (404, 405, 501)
Said = dict[str, Any]
PHASES: Final = {
    KernelWorkerStatus.QUEUED: PowerPhase.STARTING,
    KernelWorkerStatus.RUNNING: PowerPhase.ON,
    KernelWorkerStatus.CANCEL_REQUESTED: PowerPhase.STOPPING,
}
ENDED: Final = {
    KernelWorkerStatus.ERROR: "its run failed",
    KernelWorkerStatus.CANCEL_ACKNOWLEDGED: "its run was cancelled at Kaggle",
    KernelWorkerStatus.COMPLETE: "its run came to its end",
}
NO_CANCEL: Final = (
    "Kaggle lets nobody cancel a run that was pushed: it ends when its agent does, which is let in"
    " no more, or when its time is up"
)


class Kernel:
    """One kernel of an account, as Kaggle tells of it."""

    def __init__(self, payload: Said) -> None:
        self._given = payload
        self._owner, self._slug = payload["owner"], payload["slug"]
        self._address = f"{self._owner}/{self._slug}".lower()
        self._client = Client(payload["api"], payload["auth"])
        self._kernels = KernelsApiClient(self._client)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def status(self) -> Said:
        """Say how its last run is, under which label, and what is left of the quota."""
        said = self._run()
        said["quota"] = None if said.get("queued") else self._quota()  # nothing is used meanwhile
        return said

    def _run(self) -> Said:
        request = ApiGetKernelSessionStatusRequest()
        request.user_name, request.kernel_slug = self._owner, self._slug
        try:
            found = asked(self._kernels.get_kernel_session_status, request)
        except Trouble as trouble:
            if trouble.status not in (403, 404) or self._is_listed():
                raise
            return {"phase": PowerPhase.OFF.value, "source": None}
        # It is read in this order so that a label is never older than the state it is told with.
        session, source = self._client.session_id, self._source()
        phase = PHASES.get(found.status, PowerPhase.OFF)
        failure = " ".join((found.failure_message or "").split())
        said: Said = {"phase": phase.value, "source": source, "session": session}
        if phase is PowerPhase.OFF:
            ended = ENDED.get(found.status, "")
            told = f"{ended}: {failure}" if failure and ended else failure or ended
            log = f"https://www.kaggle.com/code/{self._owner}/{self._slug}"
            said["detail"] = f"{told} (its log: {log})" if told else ""
        else:
            said["launch"] = launch_of(source)
            said["queued"] = found.status is KernelWorkerStatus.QUEUED
        return said

    def _source(self) -> str:
        request = ApiGetKernelRequest()
        request.user_name, request.kernel_slug = self._owner, self._slug
        blob = asked(self._kernels.get_kernel, request).blob
        return (blob.source or "") if blob is not None else ""

    def _is_listed(self) -> bool:
        """Look for it among the account's own: one that may not be read is not one that is gone."""
        request = ApiListKernelsRequest()
        request.group = KernelsListViewType.PROFILE
        request.search, request.page_size = self._slug, PAGE
        try:
            found = asked(self._kernels.list_kernels, request).kernels or []
        except Trouble as trouble:
            if trouble.status not in NO_METHOD:
                raise
            return self._is_readable()
        return len(found) >= PAGE or any(address(one.ref) == self._address for one in found)

    def _is_readable(self) -> bool:
        """Ask for its source, where nobody lists: behind a proxy, say, that knows few methods."""
        try:
            self._source()
        except Trouble as trouble:
            if trouble.status in (403, 404) and trouble.worded:
                return False
            raise
        return True

    def _quota(self) -> Said | None:
        """Read what is used and when it is given anew; None where Kaggle does not say."""
        family = self._given["family"]
        if not family:
            return None
        try:
            request = ApiGetAcceleratorQuotaStatisticsRequest()
            said = asked(self._kernels.get_accelerator_quota_statistics, request)
        except Trouble:
            return None
        found = said.gpu_quota if family == "gpu" else said.tpu_quota
        if found is None or found.total_time_allowed is None:
            return None
        refresh = said.quota_refresh_time
        return {
            "used_h": _hours(found.time_used),
            "limit_h": _hours(found.total_time_allowed),
            # It comes without a zone and is UTC.
            "refresh": None
            if refresh is None
            else (refresh if refresh.tzinfo else refresh.replace(tzinfo=UTC)).isoformat(),
        }

    # ── writing ─────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Said:
        """Push it, which runs it, unless something runs there or it is not ours to write."""
        said = self._run()
        if PowerPhase(said["phase"]) is not PowerPhase.OFF:
            if said["launch"] == self._given["launch"]:
                return said
            runs = said["launch"] or "something that is not ours"
            raise Trouble(Snag.TRANSIENT, f"the kernel runs {runs} already")
        if said["source"] and not launch_of(said["source"]):
            text = f"{self._owner}/{self._slug} holds a notebook of yours, which a start would"
            raise Trouble(Snag.DENIED, f"{text} write over: give `kernel` one of its own")
        try:
            answer = asked(self._kernels.save_kernel, self._push(), writes=True)
        except Trouble as trouble:
            raise self._dated(trouble) from None
        if answer.error:
            raise self._dated(refusal(answer.error))
        if not answer.version_number:
            raise Trouble(Snag.LOST, "Kaggle answered, but names no version")
        made = address(answer.ref) or address(answer.url)
        if made and made != self._address:
            # Its token ends with this launch, so what runs there is let in nowhere and ends.
            text = f'Kaggle made it {made}, not {self._address}: set kernel = "{made}"'
            raise Trouble(Snag.DENIED, text)
        missing = [
            *answer.invalid_dataset_sources,
            *answer.invalid_kernel_sources,
            *answer.invalid_model_sources,
        ]
        detail = f"runs without {', '.join(missing)}: Kaggle knows no such source"
        return {
            "phase": PowerPhase.STARTING.value,
            "launch": self._given["launch"],
            "detail": detail if missing else "",
            "version": answer.version_number,
        }

    def _push(self) -> ApiSaveKernelRequest:
        given, request = self._given, ApiSaveKernelRequest()
        request.slug = f"{self._owner}/{self._slug}"
        # Kaggle makes the kernel's address of its title: another title would make another kernel.
        request.new_title = self._slug
        request.text = given["text"]
        request.language, request.kernel_type = "python", "notebook"
        request.kernel_execution_type = KernelExecutionType.SAVE_AND_RUN_ALL
        request.is_private, request.enable_internet = True, True
        request.enable_gpu = given["family"] == "gpu"
        request.enable_tpu = given["family"] == "tpu"
        if given["shape"]:
            request.machine_shape = given["shape"]
        if given["session_s"]:
            request.session_timeout_seconds = given["session_s"]
        request.dataset_data_sources = given["datasets"]
        request.kernel_data_sources = given["kernels"]
        request.model_data_sources = given["models"]
        return request

    def _dated(self, trouble: Trouble) -> Trouble:
        """Add to a spent quota when it is given anew."""
        if trouble.snag is Snag.QUOTA and (quota := self._quota()) is not None:
            trouble.refresh = quota["refresh"]
        return trouble

    def stop(self) -> Said:
        """End what runs under that label; "" whatever runs."""
        said = self._run()
        phase, label = PowerPhase(said["phase"]), self._given["launch"]
        if phase is PowerPhase.OFF or (label and said["launch"] != label):
            return {"phase": PowerPhase.OFF.value}
        going = {"phase": PowerPhase.STOPPING.value, "launch": said["launch"]}
        if phase is PowerPhase.STOPPING:
            return going
        if said["session"]:
            cancel = ApiCancelKernelSessionRequest()
            cancel.kernel_session_id = said["session"]
            answer = asked(self._kernels.cancel_kernel_session, cancel, writes=True)
            if answer.error_message:
                raise Trouble(Snag.DENIED, answer.error_message)
        elif self._given["deletes"]:
            request = ApiDeleteKernelRequest()
            request.user_name, request.kernel_slug = self._owner, self._slug
            asked(self._kernels.delete_kernel, request, writes=True)
        else:
            going["detail"] = NO_CANCEL
        return going

    # ── for doctor ──────────────────────────────────────────────────────────────────────────────

    def checks(self) -> Said:
        """Say whether the key works, whose the kernel is, and what is left."""
        said = self._run()
        source = said["source"]
        return {
            "is_there": source is not None,
            "is_ours": not source or bool(launch_of(source)),
            "quota": self._quota(),
        }


def address(link: str | None) -> str:
    """Read `user/name` from what Kaggle calls a kernel: that, a path, or its page; "" for none."""
    path = (link or "").partition("?")[0].strip("/").lower().split("/")
    return "/".join(path[-2:]) if len(path) > 1 else ""


def _hours(span: Any) -> float:
    return 0.0 if span is None else float(span.total_seconds()) / 3600.0


def main(payload: Said) -> Said:
    """Do what is asked; what Kaggle refuses is an answer."""
    kernel = Kernel(payload)
    does: dict[str, Callable[[], Said]] = {
        "status": kernel.status,
        "start": kernel.start,
        "stop": kernel.stop,
        "checks": kernel.checks,
    }
    try:
        said = does[payload["do"]]()
    except Trouble as trouble:
        return trouble.as_json()
    # The source holds the launch's token; nobody outside needs it.
    return {key: value for key, value in said.items() if key not in ("source", "session")}


if __name__ == "__main__":
    serve(main)
