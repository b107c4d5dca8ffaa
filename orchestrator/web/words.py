"""The status page's words."""

from __future__ import annotations

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Status",
        "services": "Services",
        "backends": "Backends",
        "by": "served by",
        "for": "for {}",
        "serves": "serving",
        "as_of": "As of",
        "refreshes": "This page renews itself every 10 seconds.",
        "none": "None configured.",
        "moment": "a moment",
        "all_serving": "Everything is being served",
        "all_degraded": "Served, but not at its best",
        "all_down": "Not everything is being served",
        "all_starting": "Starting: looking at everything",
        "all_paused": "Paused: observing only",
        "all_isolated": "aion has lost its own network",
        "service_serving": "Serving",
        "service_degraded": "Degraded",
        "service_down": "Down",
        "service_starting": "Starting",
        "service_paused": "Paused",
        "service_isolated": "Isolated",
        "backend_up": "Up",
        "backend_degraded": "Degraded",
        "backend_down": "Down",
        "backend_unknown": "Unknown",
        "backend_starting": "Starting",
        "backend_warming": "Warming up",
        "backend_drained": "Drained",
    },
    "pt": {
        "title": "Estado",
        "services": "Serviços",
        "backends": "Servidores",
        "by": "servido por",
        "for": "há {}",
        "serves": "a servir",
        "as_of": "Situação em",
        "refreshes": "Esta página renova-se a cada 10 segundos.",
        "none": "Nada configurado.",
        "moment": "um momento",
        "all_serving": "Tudo está a ser servido",
        "all_degraded": "Servido, mas não no seu melhor",
        "all_down": "Nem tudo está a ser servido",
        "all_starting": "A arrancar: a verificar tudo",
        "all_paused": "Em pausa: só a observar",
        "all_isolated": "O aion perdeu a sua própria rede",
        "service_serving": "A servir",
        "service_degraded": "Degradado",
        "service_down": "Em baixo",
        "service_starting": "A arrancar",
        "service_paused": "Em pausa",
        "service_isolated": "Isolado",
        "backend_up": "Ativo",
        "backend_degraded": "Degradado",
        "backend_down": "Em baixo",
        "backend_unknown": "Desconhecido",
        "backend_starting": "A arrancar",
        "backend_warming": "A aquecer",
        "backend_drained": "Retirado",
    },
}

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


def ago(seconds: float, words: dict[str, str]) -> str:
    """Say how long something has lasted: "for 3 h 12 min"."""
    if seconds < MINUTE_S:
        length = words["moment"]
    elif seconds < HOUR_S:
        length = f"{seconds // MINUTE_S:.0f} min"
    elif seconds < DAY_S:
        length = f"{seconds // HOUR_S:.0f} h {seconds % HOUR_S // MINUTE_S:.0f} min"
    else:
        length = f"{seconds // DAY_S:.0f} d {seconds % DAY_S // HOUR_S:.0f} h"
    return words["for"].format(length)
