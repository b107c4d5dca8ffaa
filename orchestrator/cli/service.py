"""`aion service`: the daemon as a systemd unit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import unit
from orchestrator.cli.options import Given, Yes
from orchestrator.cli.where import find_config
from orchestrator.errors import AionError, ConfigError, NotAllowed

app = typer.Typer()

USUAL_CONFIG = Path("/etc/aion/aion.toml")
START_S = 120.0
ASK_S = 15.0
_SHOWN = ("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts")
_ALSO = ("MemoryCurrent", "StatusText", "Result", "ActiveEnterTimestamp", "LoadCredential")


@app.callback()
def service() -> None:
    """Install the daemon as a systemd unit, or look at it."""


@app.command("install")
def install(
    ctx: typer.Context,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit; change nothing.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Write below this folder and start nothing (for images)."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Write the unit with the credentials the configuration names, enable and start it."""
    given: Given = ctx.obj
    out = given.output()
    wanted = _installation(given, root)
    text = unit.render(wanted)
    if dry_run:
        sys.stdout.write(text)
        return
    if root is None:
        _check_ground(given, wanted)
    target = (root or Path("/")) / "etc/systemd/system" / unit.NAME
    verb = "replaces" if target.exists() else "writes"
    given.ask(f"This {verb} {target}{'' if root else ', then enables and (re)starts it'}", yes=yes)
    _write(target, text)
    out.say(f"{target} written; {len(wanted.credentials)} credentials")
    if root is None:
        _systemctl("daemon-reload", timeout_s=ASK_S)
        _systemctl("enable", "--quiet", unit.NAME, timeout_s=ASK_S)
        _systemctl("restart", unit.NAME, timeout_s=START_S)
        out.say("aion is running; see: aion status, journalctl -u aion -f")


@app.command("status")
def status(ctx: typer.Context) -> int:
    """Show what systemd says of it; exit 3 if it is not running."""
    given: Given = ctx.obj
    out = given.output()
    properties = ",".join((*_SHOWN, *_ALSO))
    said = _systemctl("show", unit.NAME, f"--property={properties}", timeout_s=ASK_S)
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    running = found.get("ActiveState") == "active"
    memory = found.get("MemoryCurrent", "")
    fields = {
        "unit": found.get("LoadState", ""),
        "state": f"{found.get('ActiveState', '')} ({found.get('SubState', '')})",
        "says": found.get("StatusText", ""),
        "since": found.get("ActiveEnterTimestamp", ""),
        "at boot": found.get("UnitFileState", ""),
        "process": found.get("MainPID", "") if running else "",
        "restarts": found.get("NRestarts", ""),
        "memory": f"{int(memory) / 1_000_000:.0f} MB" if memory.isdigit() else "",
        "last result": found.get("Result", ""),
    }
    if out.json:
        out.data({name.replace(" ", "_"): value for name, value in fields.items()})
    else:
        out.fields(fields)
    if found.get("LoadState") == "not-found":
        out.say("not installed; sudo aion service install does it")
    return 0 if running else 3


def _installation(given: Given, root: Path | None) -> unit.Installation:
    """Say what the unit has to hold; below `root` the configuration is looked for there."""
    config = given.config or (USUAL_CONFIG if root else find_config(None)) or USUAL_CONFIG
    config = Path(os.path.normpath(Path.cwd() / config))
    real = root / config.relative_to("/") if root else config
    names = unit.credentials(unit.read_config(real))
    missing = [n for n in names if not _there(real.parent / "credentials" / n)]
    if missing:
        # systemd would refuse to start the unit, and say only "status=243/CREDENTIALS".
        plural = "s" if len(missing) > 1 else ""
        raise ConfigError(
            f"credential{plural} {', '.join(missing)} not found in {real.parent / 'credentials'}; "
            f"fix: aion secret set {missing[0]}"
        )
    return unit.Installation(Path(sys.prefix) / "bin" / "aion", config, names)


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:  # root's own; systemd will be able to read it
        return True


def _check_ground(given: Given, wanted: unit.Installation) -> None:
    """Refuse what can't work here: not root, no systemd, or paths the sandbox hides."""
    hidden = unit.hidden(
        wanted.program, Path(sys.base_prefix), Path(__file__).resolve(), wanted.config
    )
    if hidden:
        raise ConfigError(
            f"{hidden} is where the service's sandbox cannot see it; put aion under /opt/aion with "
            f"a Python that is not in a home directory, and the configuration into {USUAL_CONFIG}"
        )
    if os.geteuid() != 0:
        config = f" --config {wanted.config}" if given.config else ""
        raise NotAllowed(
            f"only root can install a unit; run: sudo {wanted.program} service install{config}"
        )
    if not Path("/run/systemd/system").is_dir():
        raise AionError("systemd does not run here; --dry-run prints the unit")


def _write(target: Path, text: str) -> None:
    """Put the file there whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        draft.write_text(text)
        draft.chmod(0o644)
        draft.replace(target)
    except OSError as error:
        raise AionError(f"cannot write {target}: {error.strerror}") from error


def _systemctl(*words: str, timeout_s: float) -> str:
    """Run systemctl and return what it printed. Raises AionError with its own last words."""
    try:
        done = subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise AionError("there is no systemctl here: this is not a systemd machine") from error
    except subprocess.TimeoutExpired as error:
        raise AionError(f"systemctl {words[0]} took over {timeout_s:.0f} s") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise AionError(f"systemctl {words[0]}: {said}")
    return done.stdout
