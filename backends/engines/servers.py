"""The engines, one by one. Where each fact comes from: docs/engines.md and the fixtures."""

# ruff: noqa: PLR2004  # HTTP statuses are known by their numbers

from __future__ import annotations

import json
from typing import Any, Final

from backends.base import Reply
from backends.engines.answers import NAME, OK, Finding, explanation, failed, parse, plain
from backends.engines.form import Call, Engine, empty_is_ready
from backends.engines.names import LISTED, Listed, by_file, ids, with_latest
from orchestrator.core.model import Verdict


def _strange(engine: str) -> Finding:
    return failed(f"answers 200, but not as {engine} does; is another program on that port?")


def _field(body: Any, key: str) -> Any:
    return body.get(key) if isinstance(body, dict) else None


# ── OpenAI-compatible, nothing else known ───────────────────────────────────────────────────────


def _openai_ready(reply: Reply) -> Finding:
    if ids(parse(reply)) is not None:
        return OK
    said = explanation(reply)
    return failed("answers 200, but not with a list of models" + (f" ({said})" if said else ""))


OPENAI: Final = Engine("openai", health="/v1/models", ready=_openai_ready, models=None)


# ── Ollama: loads at the first request, so there is no loading to see ───────────────────────────


def _ollama_ready(reply: Reply) -> Finding:
    version = _field(parse(reply), "version")
    return OK if isinstance(version, str) else _strange("Ollama")


def _ollama_listed(body: Any) -> tuple[Listed, ...] | None:
    models = _field(body, "models")
    if not isinstance(models, list):
        return None
    named = (_field(one, "name") or _field(one, "model") for one in models[:LISTED])
    return tuple(Listed(name) for name in named if isinstance(name, str))


OLLAMA: Final = Engine(
    "ollama",
    health="/api/version",
    ready=_ollama_ready,
    models="/api/tags",
    listed=_ollama_listed,
    same=with_latest,
)


# ── vLLM: /health is 200 without a body; it does not listen before its model is loaded ──────────


VLLM: Final = Engine("vllm", health="/health", ready=empty_is_ready)


# ── llama.cpp ───────────────────────────────────────────────────────────────────────────────────


def _llamacpp_ready(reply: Reply) -> Finding:
    status = _field(parse(reply), "status")
    if status == "ok":
        return OK
    if status == "no slot available":  # builds before 2024-10, with fail_on_no_slot off
        return Finding(Verdict.OK, "all slots are busy")
    if status == "loading model":
        return Finding(Verdict.LOADING, "loading the model")
    return _strange("llama.cpp")


def _llamacpp_loading(reply: Reply) -> str:
    said = explanation(reply).lower()
    return "loading the model" if reply.status == 503 and "loading model" in said else ""


def _llamacpp_busy(reply: Reply) -> bool:
    return reply.status == 503 and "slot" in explanation(reply).lower()


def _llamacpp_listed(body: Any) -> tuple[Listed, ...] | None:
    data = _field(body, "data")
    if not isinstance(data, list):
        return None
    return tuple(
        _llamacpp_model(one) for one in data[:LISTED] if isinstance(_field(one, "id"), str)
    )


def _llamacpp_model(one: dict[str, Any]) -> Listed:
    """Read one entry; the router says the state of each in `status` (see its README)."""
    aliases = one.get("aliases")
    also = tuple(a for a in aliases if isinstance(a, str)) if isinstance(aliases, list) else ()
    status = _field(one, "status")
    value = _field(status, "value")
    if value in ("loading", "downloading"):
        return Listed(one["id"], also, "loading")
    if _field(status, "failed"):
        return Listed(one["id"], also, "failed", f"exit code {plain(status.get('exit_code'), 12)}")
    if value in ("unloaded", "sleeping"):
        return Listed(one["id"], also, "idle", "its model loads at the first request")
    return Listed(one["id"], also)


LLAMACPP: Final = Engine(
    "llamacpp",
    health="/health",
    ready=_llamacpp_ready,
    loading=_llamacpp_loading,
    listed=_llamacpp_listed,
    same=by_file,
    busy=_llamacpp_busy,
)


# ── Text Generation Inference: chat needs a template, /generate always works ────────────────────


def _tgi_listed(body: Any) -> tuple[Listed, ...] | None:
    name = _field(body, "model_id")
    return (Listed(name),) if isinstance(name, str) and name else None


def _tgi_call(_: str) -> Call:
    asked = {"inputs": "Hi", "parameters": {"max_new_tokens": 1}}
    return Call("/generate", json.dumps(asked).encode(), _generated)


def _generated(body: Any) -> bool:
    one = body[0] if isinstance(body, list) and body else body
    return isinstance(_field(one, "generated_text"), str)


TGI: Final = Engine(
    "tgi",
    health="/health",
    ready=empty_is_ready,
    models="/info",
    listed=_tgi_listed,
    canary=_tgi_call,
)


# ── text-generation-webui: its health says ok without a model, so the model is asked for ────────


def _textgen_ready(reply: Reply) -> Finding:
    listed = _textgen_listed(parse(reply))
    if listed is None:
        return _strange("text-generation-webui")
    return OK if listed else failed("runs, but no model is loaded")


def _textgen_listed(body: Any) -> tuple[Listed, ...] | None:
    if not isinstance(body, dict) or "model_name" not in body:
        return None
    name = body["model_name"]
    if not isinstance(name, str) or name in {"", "None"}:
        return ()
    loras = body.get("lora_names")
    names = [name, *(loras[:LISTED] if isinstance(loras, list) else [])]
    return tuple(Listed(one) for one in names if isinstance(one, str))


TEXTGEN: Final = Engine(
    "textgen",
    health="/v1/internal/model/info",
    ready=_textgen_ready,
    models=None,
    listed=_textgen_listed,
    same=by_file,
)


# ── LiteLLM's proxy: /health calls every model for money, /health/readiness none ────────────────


def _litellm_ready(reply: Reply) -> Finding:
    status = _field(parse(reply), "status")
    if status in ("healthy", "connected", "ready"):
        return OK
    if isinstance(status, str):
        return failed(f"says it is “{plain(status, NAME)}”")
    return _strange("LiteLLM")


LITELLM: Final = Engine("litellm", health="/health/readiness", ready=_litellm_ready)


# ── LM Studio: lists what it has on disk and loads at the first request ─────────────────────────


def _lmstudio_listed(body: Any) -> tuple[Listed, ...] | None:
    """Read `/api/v0/models`, where there is a `state`; other versions answer with an error."""
    data = _field(body, "data")
    if not isinstance(data, list) or ids(body) is None:
        return None
    found = []
    for one in data[:LISTED]:
        if isinstance(_field(one, "id"), str):
            idle = one.get("state") == "not-loaded"
            note = "its model loads at the first request" if idle else ""
            found.append(Listed(one["id"], state="idle" if idle else "", note=note))
    return tuple(found)


LMSTUDIO: Final = Engine(
    "lmstudio",
    health="/v1/models",
    ready=_openai_ready,
    models="/api/v0/models",
    listed=_lmstudio_listed,
    health_lists=True,
    same=by_file,
)


# ── KoboldCpp ───────────────────────────────────────────────────────────────────────────────────


def _kobold_ready(reply: Reply) -> Finding:
    body = parse(reply)
    if _field(body, "result") != "KoboldCpp":
        return _strange("KoboldCpp")
    if body.get("llm") is False:  # newer ones say what they can do
        return failed("runs, but no text model is loaded")
    return OK


def _kobold_listed(body: Any) -> tuple[Listed, ...] | None:
    name = _field(body, "result")
    if not isinstance(name, str) or not name:
        return None
    if name == "inactive":
        return ()
    return (Listed(name, also=(name.removeprefix("koboldcpp/"),)),)


def _kobold_call(_: str) -> Call:
    asked = {"prompt": "Hi", "max_length": 1}
    return Call("/api/v1/generate", json.dumps(asked).encode(), _kobold_done)


def _kobold_done(body: Any) -> bool:
    results = _field(body, "results")
    return isinstance(results, list) and bool(results) and isinstance(results[0], dict)


def _kobold_busy(reply: Reply) -> bool:
    return reply.status == 503 and "busy" in explanation(reply).lower()


KOBOLDCPP: Final = Engine(
    "koboldcpp",
    health="/api/extra/version",
    ready=_kobold_ready,
    models="/api/v1/model",
    listed=_kobold_listed,
    same=by_file,
    canary=_kobold_call,
    busy=_kobold_busy,
)


# ── AION's own inference service ────────────────────────────────────────────────────────────────


def _aion_ready(reply: Reply) -> Finding:
    body = parse(reply)
    if not isinstance(body, dict) or "base_model" not in body:
        return _strange("AION's inference service")
    if not body["base_model"]:
        return Finding(Verdict.LOADING, "no base model yet")
    if body.get("adapter_loaded") is False:
        return Finding(Verdict.OK, "serves the base model; no adapter is loaded")
    return OK


def _aion_listed(body: Any) -> tuple[Listed, ...] | None:
    name = _field(body, "base_model")
    return (Listed(name),) if isinstance(name, str) and name else None


def _aion_call(_: str) -> Call:
    asked = {"prompt": "Hi", "max_new_tokens": 1, "max_tokens": 1}
    return Call("/generate", json.dumps(asked).encode(), _aion_done)


def _aion_done(body: Any) -> bool:
    return body is not None and not _field(body, "error")


AION: Final = Engine(
    "aion",
    health="/health",
    ready=_aion_ready,
    models=None,
    listed=_aion_listed,
    same=by_file,
    canary=_aion_call,
)


ENGINES: Final[dict[str, Engine]] = {
    engine.name: engine
    for engine in (
        OPENAI,
        OLLAMA,
        VLLM,
        LLAMACPP,
        TGI,
        TEXTGEN,
        LITELLM,
        LMSTUDIO,
        KOBOLDCPP,
        AION,
    )
}
