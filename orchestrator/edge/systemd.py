"""Tell systemd how the daemon is doing: the `sd_notify` protocol, one datagram a message.

systemd puts the address of its socket in `$NOTIFY_SOCKET` and the watchdog's patience in
`$WATCHDOG_USEC`. The environment is read elsewhere; its values come in here as arguments. Without
systemd (no address) everything here does nothing and says so by returning False.
The protocol is in sd_notify(3).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable

SEND_TIMEOUT_S = 1.0  # the queue of a busy PID 1 holds as few as ten datagrams
STATUS_CHARS = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def watchdog_interval_s(usec: str | None, watchdog_pid: str | None, pid: int) -> float | None:
    """Say how often to pet the watchdog: half of its patience, in seconds.

    `usec` is `$WATCHDOG_USEC`, `watchdog_pid` is `$WATCHDOG_PID`, `pid` is our own. None when there
    is no watchdog, it is meant for another process, or the values make no sense.
    """
    if watchdog_pid is not None and watchdog_pid != str(pid):
        return None
    if usec is None or not usec.isascii() or not usec.isdigit() or int(usec) == 0:
        return None
    return int(usec) / 2_000_000


class Notifier:
    """Sends state to systemd at `address`, which is `$NOTIFY_SOCKET` or None."""

    def __init__(self, address: str | None) -> None:
        self._address = _to_sockaddr(address) if address else None

    def ready(self, status: str = "") -> bool:
        """Say that the start is over. `status` is what `systemctl status` shows."""
        return self._send("READY=1", status=status)

    def watchdog(self) -> bool:
        """Say that a whole turn of the loop was completed; nothing else may call this."""
        return self._send("WATCHDOG=1")

    def stopping(self) -> bool:
        """Say that the daemon is on its way out."""
        return self._send("STOPPING=1")

    def status(self, text: str) -> bool:
        """Show one line in `systemctl status`."""
        return self._send(status=text)

    def _send(self, *fields: str, status: str = "") -> bool:
        """Send one message; False when nobody listens or the send failed.

        Never raises: a daemon that serves must not die because it could not say so.
        """
        if self._address is None:
            return False
        lines = [*fields]
        if status:
            # A line break in the text would begin a field of its own, such as MAINPID.
            lines.append("STATUS=" + _CONTROL.sub(" ", status)[:STATUS_CHARS])
        message = "\n".join(lines).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(SEND_TIMEOUT_S)
                sender.connect(self._address)
                return sender.send(message) == len(message)
        except OSError:
            return False


async def pet(notifier: Notifier, turned_at: Callable[[], float], every_s: float) -> None:
    """Pet the watchdog for whole turns of the loop, until cancelled.

    `turned_at` gives when the last turn was completed; without a newer one nothing is sent.
    """
    last = -1.0
    while True:
        if turned_at() != last:
            last = turned_at()
            notifier.watchdog()
        await asyncio.sleep(every_s)


def _to_sockaddr(address: str) -> str | None:
    """Translate: `@name` is an abstract socket, whose first byte is NUL; a path stays itself."""
    if address.startswith("@"):
        return "\0" + address[1:]
    return address if address.startswith("/") else None
