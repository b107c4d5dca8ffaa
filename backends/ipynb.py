"""The notebook that runs a backend: a note on the terms, and one cell of code.

Plain JSON in the form of nbformat 4.5 (https://nbformat.readthedocs.io). No secret is in it, except
the token of one launch where a start brings one.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backends import terms

JUPYTER: Final = "jupyter"
PLATFORMS: Final = (terms.COLAB, terms.KAGGLE, JUPYTER)
TUNNELS: Final = ("cloudflared", "ngrok", "none")
TOKEN: Final = "AION_TOKEN"  # noqa: S105 - the name of one
AGENT_PORT: Final = 8766  # the agent's own default
# Cloudflare turns away what calls itself Python-urllib.
FETCH: Final = (
    "import urllib.request as u; exec(u.urlopen("
    'u.Request(aion + "/agent.py", headers={"User-Agent": "aion-notebook"})).read())'
)
LAUNCH: Final = "# aion launch: "
# Nobody is there to run it again if the daemon is just being restarted.
PATIENTLY: Final = f"""\
import time
for left in range(60, -1, -1):
    try:
        {FETCH}
        break
    except OSError as error:
        print("the daemon cannot be reached:", error)
        if not left:
            raise
        time.sleep(10)"""


@dataclass(frozen=True, slots=True)
class Told:
    """What the agent is told. `url` and `listen` only where a tunnel does not decide them.

    `launch`: the label of the start that runs it, with its own `token`. `more`: options of the
    agent that the operator gave; they go before ours.
    """

    aion: str
    backend: str
    engine: str
    models: tuple[str, ...]
    tunnel: str
    url: str = ""
    listen: str = ""
    insecure: bool = False
    launch: str = ""
    token: str = field(default="", repr=False)
    more: Mapping[str, Any] = field(default_factory=dict)


def way_in(patterns: Sequence[str], platform: str) -> tuple[str, str, str]:
    """Choose how the world gets in, by the hosts it may register: tunnel, url and listen."""
    for end, tunnel in (("trycloudflare.com", "cloudflared"), ("ngrok", "ngrok")):
        if any(end in pattern for pattern in patterns):
            return tunnel, "", ""
    host = next((pattern for pattern in patterns if not pattern.startswith("*")), "")
    if _loopback(host):
        return "none", f"http://{host}:{AGENT_PORT}", host
    url = f"https://{host}" if host else ""
    return ("none" if platform == JUPYTER else "cloudflared"), url, ""


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def document(told: Told, platform: str) -> dict[str, Any]:
    """Make the notebook."""
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": _metadata(platform),
        "cells": [
            {
                "id": "about",
                "cell_type": "markdown",
                "metadata": {},
                "source": _lines(_about(told, platform)),
            },
            {
                "id": "agent",
                "cell_type": "code",
                "metadata": {"cellView": "form"} if platform == terms.COLAB else {},
                "execution_count": None,
                "outputs": [],
                "source": _lines(code(told, platform)),
            },
        ],
    }


def code(told: Told, platform: str) -> str:
    """Write the one cell of code."""
    form = platform == terms.COLAB
    texts = {"aion": told.aion, "backend": told.backend, "engine": told.engine}
    lines = [f"{name} = {_quoted(value)}" for name, value in texts.items()]
    lines += [f"models = {_quoted(list(told.models))}", f"tunnel = {_quoted(told.tunnel)}"]
    if form:
        kinds = ['{type:"string"}'] * 3 + ['{type:"raw"}', json.dumps(TUNNELS)]
        lines = [f"{line} #@param {kind}" for line, kind in zip(lines, kinds, strict=True)]
        lines.insert(0, f"#@title aion: {told.backend}")
    names = ["aion", "backend", "engine", "models", "tunnel"]
    ours = {"url": told.url, "listen": told.listen, "insecure": told.insecure, "token": told.token}
    given = {**{name: value for name, value in ours.items() if value}, **told.more}
    words = [f"{name}={name}" for name in names if name not in told.more]
    words += [f"{name}={_quoted(value)}" for name, value in given.items()]
    call = f"start({', '.join(words)})"
    if told.launch:
        return "\n".join([f"{LAUNCH}{told.launch}", *lines, PATIENTLY, call])
    return "\n".join([*lines, FETCH, call])


def launch_of(source: str) -> str:
    """Read the label of the start that a notebook was made for; "" where it is none of ours."""
    found = re.search(LAUNCH + r"([a-z0-9-]{1,200})", source)
    return found[1] if found else ""


def _quoted(value: Any) -> str:
    """Write a value as Python does; JSON's form is the same for printable texts and lists."""
    return repr(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _about(told: Told, platform: str) -> str:
    lines = [f"# {told.backend}: a backend of {told.aion}", ""]
    if told.launch:
        lines += [
            "Made and run by aion; the next start writes it anew. The token in it is good for this",
            "start alone, until its first session serves.",
        ]
    else:
        needs = f"It needs the backend's token: {where_the_token_goes(platform)}."
        lines += [f"Run the cell below. {needs}", "The token is never written into this notebook."]
    if rules := terms.of(platform):
        lines += ["", f"**Terms.** {rules.text}: <{rules.link}>. {rules.advice.capitalize()}."]
    return "\n".join(lines)


def where_the_token_goes(platform: str) -> str:
    """Say where the agent will look for the token."""
    if platform == terms.COLAB:
        return f"in the secrets panel (the key at the left) add {TOKEN} and let the notebook see it"
    if platform == terms.KAGGLE:
        return f"under Add-ons → Secrets add {TOKEN} and attach it; switch on Internet and a GPU"
    return f"put it into the variable {TOKEN} before you start Jupyter, or type it when asked"


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _metadata(platform: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    if platform == terms.COLAB:
        found |= {"accelerator": "GPU", "colab": {"provenance": [], "gpuType": "T4"}}
    elif platform == terms.KAGGLE:
        found["kaggle"] = {
            "accelerator": "nvidiaTeslaT4",
            "isGpuEnabled": True,
            "isInternetEnabled": True,
            "language": "python",
            "sourceType": "notebook",
        }
    return found
