"""The machine's clocks and randomness: the only file that reads them."""

from __future__ import annotations

import random  # noqa: TID251 - this is the port
import re
import time  # noqa: TID251 - this is the port
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")  # random(4)

SystemRandom = random.SystemRandom
SeededRandom = random.Random  # the same numbers again for the same seed


@dataclass(frozen=True, slots=True)
class Anchor:
    """What ties steady seconds to one boot of the machine.

    `boot_id` names the boot, "" where that is not known; `offset_s` is steady seconds less boot
    time since the process began, or was last suspended.
    """

    boot_id: str
    offset_s: float


class CarriedClock:
    """Implements `backends.base.Clock` on three readings, in seconds.

    Steady seconds are Unix time at construction carried on by `monotonic`, until `resume` says
    where they really stand. `boot` goes on while the machine is suspended; `boot_id` names its
    zero, "" if nothing does.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        boot: Callable[[], float],
        boot_id: str = "",
    ) -> None:
        self._monotonic, self.wall, self.boot = monotonic, wall, boot
        self._boot_id = boot_id
        self._offset = wall() - monotonic()

    def resume(self, written_at: float, anchor: Anchor | None) -> Anchor:
        """Go on from an earlier run; call before anything reads steady seconds.

        `written_at` is the latest steady time that run stored, `anchor` what it stored of its own.
        Within one boot of the machine boot time carries steady seconds on, whatever the wall clock
        did meanwhile. After a reboot, or where boots have no name, the wall clock says where they
        begin. They never begin before `written_at`. Returns what to store for the next run; after
        a suspend, during which steady seconds stand still, that is `anchor` anew, or the next run
        would begin ahead by its length.
        """
        began, boot = self.steady(), self.boot()
        if anchor is not None and anchor.boot_id and anchor.boot_id == self._boot_id:
            began = boot + anchor.offset_s
        else:
            anchor = Anchor(self._boot_id, began - boot)
        if began < written_at:
            began, anchor = written_at, Anchor(self._boot_id, written_at - boot)
        self._offset = began - self._monotonic()
        return anchor

    def anchor(self) -> Anchor:
        """Say how steady seconds and boot time stand to each other now."""
        return Anchor(self._boot_id, self.steady() - self.boot())

    def steady(self) -> float:
        return self._monotonic() + self._offset


class SystemClock(CarriedClock):
    """The machine's clocks. `told`: what `boot_id` falls back on."""

    def __init__(self, told: str = "") -> None:
        super().__init__(
            time.monotonic, time.time, lambda: time.clock_gettime(BOOTTIME), boot_id(told)
        )


def boot_id(told: str = "", source: Path = BOOT_ID) -> str:
    """Read the kernel's name of this boot, 32 hex digits; "" where there is none.

    `told` counts only where the kernel's is hidden, as in our unit's sandbox. Only hex digits are
    believed: a `%b` that nobody expanded would be the same in every boot.
    """
    try:
        found = source.read_text()
    except OSError:
        found = told
    found = found.strip().replace("-", "").lower()
    return found if re.fullmatch("[0-9a-f]{32}", found) else ""
