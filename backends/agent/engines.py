"""What the agent knows of each engine: how it is started, and when it can serve.

How the daemon asks them: docs/engines.md. This is less, and stands alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import Refused
from .keys import HUGGING_FACE, Keys, environment
from .settings import Settings

READY, LOADING, FAILED = "ready", "loading", "failed"
Said = tuple[str, str]  # one of the three, and why

Model = str
LOCAL = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start an engine: arguments, and the environment on top of ours."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine: its usual port, its program, where it is asked, and what its answer means.

    `argv` gives the arguments after the program for a port and a model; None: it has to be told.
    """

    port: int
    health: str
    read: Callable[[int, Any], Said]
    program: str = ""
    argv: Callable[[str, Model], list[str]] | None = None
    hint: str = ""


def _field(body: Any, key: str) -> Any:
    return body.get(key) if isinstance(body, dict) else None


def _strange(name: str) -> Said:
    return FAILED, f"another program answers there, not {name}"


def _listed(_status: int, body: Any) -> Said:
    return (READY, "") if isinstance(_field(body, "data"), list) else _strange("an OpenAI API")


def _ollama(_status: int, body: Any) -> Said:
    return (READY, "") if isinstance(_field(body, "version"), str) else _strange("Ollama")


def _any(_status: int, _body: Any) -> Said:
    return READY, ""


def _llamacpp(_status: int, body: Any) -> Said:
    if _field(body, "status") in ("ok", "no slot available"):
        return READY, ""
    return LOADING, "loading the model"


def _textgen(_status: int, body: Any) -> Said:
    if not isinstance(body, dict) or "model_name" not in body:
        return _strange("text-generation-webui")
    if body["model_name"] in ("", "None", None):
        return LOADING, "no model is loaded yet"
    return READY, ""


def _litellm(_status: int, body: Any) -> Said:
    status = _field(body, "status")
    if status in ("healthy", "connected", "ready"):
        return READY, ""
    return FAILED, f"says that it is {status}"


def _kobold(_status: int, body: Any) -> Said:
    return (READY, "") if _field(body, "result") == "KoboldCpp" else _strange("KoboldCpp")


def _aion(_status: int, body: Any) -> Said:
    if not isinstance(body, dict) or "base_model" not in body:
        return _strange("AION's service")
    return (READY, "") if body["base_model"] else (LOADING, "no base model yet")


def _vllm_argv(port: str, model: Model) -> list[str]:
    return ["serve", model, "--host", LOCAL, "--port", port]


def _llamacpp_argv(port: str, model: Model) -> list[str]:
    local = model.endswith(".gguf") or Path(model).exists()
    source = ["--model", model] if local else ["-hf", model]
    return [*source, "--alias", model, "--host", LOCAL, "--port", port]


def _textgen_argv(port: str, model: Model) -> list[str]:
    return ["server.py", "--api", "--nowebui", "--api-port", port, "--model", model]


ENGINES: dict[str, Engine] = {
    "openai": Engine(8000, "/v1/models", _listed),
    "ollama": Engine(11434, "/api/version", _ollama, "ollama", lambda _p, _m: ["serve"]),
    "vllm": Engine(8000, "/health", _any, "vllm", _vllm_argv, "pip install vllm"),
    "llamacpp": Engine(
        8080, "/health", _llamacpp, "llama-server", _llamacpp_argv, "build llama.cpp or fetch it"
    ),
    "tgi": Engine(
        8080,
        "/health",
        _any,
        "text-generation-launcher",
        lambda p, m: ["--model-id", m, "--hostname", LOCAL, "--port", p],
    ),
    "textgen": Engine(
        5000, "/v1/internal/model/info", _textgen, sys.executable or "python3", _textgen_argv
    ),
    "litellm": Engine(
        4000,
        "/health/readiness",
        _litellm,
        "litellm",
        lambda p, m: ["--host", LOCAL, "--port", p, "--model", m],
        "pip install 'litellm[proxy]'",
    ),
    "lmstudio": Engine(1234, "/v1/models", _listed),
    "koboldcpp": Engine(
        5001,
        "/api/extra/version",
        _kobold,
        "koboldcpp",
        lambda p, m: ["--model", m, "--host", LOCAL, "--port", p, "--skiplauncher"],
    ),
    "aion": Engine(8000, "/health", _aion),
    "http": Engine(8000, "/", _any),
    "tcp": Engine(8000, "", _any),
}


def read(engine: Engine, status: int, body: bytes) -> Said:
    """Say what an answer to the health path means."""
    parsed: Any = None
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if 200 <= status < 300:
        return engine.read(status, parsed)
    if status == 503:
        return LOADING, "loading the model"
    if status in (401, 403):
        return FAILED, "the engine wants a key: put it into the secret AION_ENGINE_KEY"
    return FAILED, f"answers {status} at {engine.health}"


def launch(settings: Settings, port: int, keys: Keys) -> Launch:
    """Say how to start the configured engine at `port`. Raises Refused if nobody knows."""
    engine = ENGINES[settings.engine]
    model = settings.models[0] if settings.models else ""
    more: dict[str, str] = {}
    if settings.engine == "ollama":
        keep = settings.keep_alive
        more = {"OLLAMA_HOST": f"{LOCAL}:{port}", "OLLAMA_KEEP_ALIVE": keep}
    if keys.hugging_face:
        more[HUGGING_FACE] = keys.hugging_face
    env = environment(**more)
    if settings.engine_command:
        filled = [
            one.replace("{port}", str(port)).replace("{model}", model)
            for one in settings.engine_command
        ]
        return Launch((*filled, *settings.engine_args), env)
    if engine.argv is None:
        raise Refused(
            f"nobody knows how to start {settings.engine}: say engine_command, or engine_url "
            "if it runs already"
        )
    needs_model = settings.engine not in ("ollama", "litellm")
    if needs_model and not model:
        raise Refused(f"models: which model shall {settings.engine} load?")
    argv = engine.argv(str(port), model)
    if not model and "--model" in argv:  # LiteLLM with a configuration file of its own
        argv = argv[: argv.index("--model")]
    return Launch((engine.program, *argv, *settings.engine_args), env)
