"""A small Debian to boot, built once and kept between runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "procps", "python3", "ca-certificates", "tzdata")
PYTHON = (3, 11)  # the suite's own: compiled wheels of our environment must fit it
CAP_SYS_ADMIN = 21


def reason_not_to_boot() -> str | None:
    """Why no container can be booted here; None if it can."""
    if os.geteuid() != 0:
        return "needs root"
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    if not int(effective, 16) >> CAP_SYS_ADMIN & 1:
        return "needs root with the power to mount (CAP_SYS_ADMIN)"
    missing = [name for name in ("systemd-nspawn", "mmdebstrap") if shutil.which(name) is None]
    if missing:
        return f"needs {' and '.join(missing)}; .ci/run installs them"
    if sys.version_info[:2] != PYTHON:
        return "needs the environment made with Python 3.11, as the container has it"
    return None


def copy_of_rootfs(target: Path) -> Path:
    """A fresh copy of the cached Debian at `target`, for one boot."""
    name = hashlib.sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:12]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aion-tests"
    home.mkdir(parents=True, exist_ok=True)
    cached = home / f"rootfs-{name}"
    proof = home / f"rootfs-{name}.digest"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (proof.exists() and cached.is_dir() and proof.read_text() == digest(cached)):
            proof.unlink(missing_ok=True)
            shutil.rmtree(cached, ignore_errors=True)
            build(cached)
            proof.write_text(digest(cached))
        subprocess.run(["cp", "-a", "--reflink=auto", cached, target], check=True)
    return target


def build(target: Path) -> None:
    """Fetch and unpack the Debian; about 25 s."""
    command = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(PACKAGES)}"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale")]
    for last in (False, False, True):  # a mirror may be busy
        done = subprocess.run(
            [*command, SUITE, target], capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode == 0:
            return
        shutil.rmtree(target, ignore_errors=True)
        assert not last, f"mmdebstrap failed: {done.stderr[-2000:]}"


def digest(tree: Path) -> str:
    """What a half-built or half-deleted tree would change: every path and size."""
    whole = hashlib.sha256()
    for folder, names, files in os.walk(tree):
        names.sort()
        for file in sorted(files):
            path = Path(folder, file)
            whole.update(f"{path} {path.lstat().st_size}\n".encode())
    return whole.hexdigest()


def install_aion(rootfs: Path) -> list[str]:
    """Put an installation at /opt/aion, its code and packages bound from here; returns the binds.

    The environment is the container's own, because ours may rest on a Python in a home directory,
    which the unit's sandbox hides.
    """
    subprocess.run(
        ["chroot", rootfs, "python3", "-m", "venv", "--without-pip", "/opt/aion/.venv"], check=True
    )
    script = rootfs / "opt/aion/.venv/bin/aion"
    script.write_text("#!/opt/aion/.venv/bin/python\nfrom orchestrator.cli import main\n\nmain()\n")
    script.chmod(0o755)
    own = rootfs / "opt/aion/.venv/lib/python3.11/site-packages"
    (own / "aion.pth").write_text("/opt/aion\n/opt/aion/packages\n")
    (rootfs / "opt/aion/packages").mkdir()
    packages = Path(sys.prefix) / "lib/python3.11/site-packages"
    binds = [f"--bind-ro={packages}:/opt/aion/packages"]
    for name in ("orchestrator", "backends", "jobs", "systemd", "config"):
        (rootfs / "opt/aion" / name).mkdir()
        binds.append(f"--bind-ro={REPO / name}:/opt/aion/{name}")
    return binds
