"""What the log writes, and what can never get into it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from orchestrator.edge.log import LINE_CHARS, Log

SECRET = "s3cr3t/canary+9f"
NASTY = [chr(n) for n in [*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2028, 0x2066, 0xD800, 0xFEFF]]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def made(**options) -> tuple[io.StringIO, Log]:
    stream = io.StringIO()
    log = Log(stream, lambda: 1_700_000_000.5, **options)
    log.install("info")
    return stream, log


def fail(text: str) -> None:
    raise RuntimeError(text)


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


def test_an_event_is_one_json_line_with_a_stable_name():
    stream, _ = made()
    structlog.get_logger().info("service_moved", service="chat", to="kaggle", epoch=17, ok=True)
    assert lines(stream) == [
        {
            "at": "2023-11-14T22:13:20.500Z",
            "level": "info",
            "event": "service_moved",
            "service": "chat",
            "to": "kaggle",
            "epoch": 17,
            "ok": True,
        }
    ]


def test_below_the_level_nothing_is_written():
    stream, _ = made()
    structlog.get_logger().debug("noise")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("method", "number"), [("info", 6), ("warning", 4), ("error", 3)])
def test_under_systemd_a_line_starts_with_its_priority(method, number):
    stream, _ = made(journal=True)
    getattr(structlog.get_logger(), method)("tick")
    prefix, _, rest = stream.getvalue().partition(">")
    assert prefix == f"<{number}"
    assert json.loads(rest)["event"] == "tick"


@pytest.mark.parametrize("options", [{}, {"journal": True}, {"terminal": True}])
@pytest.mark.parametrize("character", NASTY, ids=lambda c: f"U+{ord(c):04X}")
def test_a_hostile_name_cannot_forge_or_garble_a_line(options, character):
    stream, _ = made(**options)
    evil = f'x{character}<0>{{"event":"forged"}}'
    structlog.get_logger().info("backend_seen", model=evil, **{evil: evil}, deep={evil: [evil]})
    structlog.get_logger().info(evil)
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert character == "\n" or character not in text
    text.encode()


def test_a_field_cannot_pose_as_the_time_or_level():
    stream, _ = made()
    structlog.get_logger().info("seen", at="never", level="none")
    (line,) = lines(stream)
    assert (line["at"], line["level"]) == ("2023-11-14T22:13:20.500Z", "info")


def test_lengths_and_depths_are_capped():
    stream, _ = made()
    deep: list = []
    for _ in range(50):
        deep = [deep]
    many = {f"key{n}": "v" * 5000 for n in range(100)}
    structlog.get_logger().info("e" * 9000, text="x" * 90_000, deep=deep)
    structlog.get_logger().info("many", **many)
    first, second = lines(stream)
    assert len(first["event"]) < 300
    assert len(first["text"]) < 2100
    assert second["event"] == "many"
    assert second["cut"] > LINE_CHARS
    assert all(len(line) <= LINE_CHARS + 100 for line in stream.getvalue().split("\n"))


@pytest.mark.parametrize("options", [{}, {"terminal": True}])
def test_a_secret_never_appears_in_any_form(options):
    stream, log = made(**options)
    log.hide([SECRET, "abc"])
    logger = structlog.get_logger()
    event = "used " + SECRET
    logger.info(event, url=f"https://u:{SECRET}@h/?k=s3cr3t%2Fcanary%2B9f", n={SECRET: 1})
    logger.info("cut", text="x" * 1990 + SECRET)
    logging.getLogger("httpx").warning("GET %s", SECRET)
    try:
        fail(SECRET)
    except RuntimeError:
        logger.exception("failed", **{SECRET: [SECRET]})
    text = stream.getvalue()
    assert "canary" not in text
    assert "s3cr3t" not in text
    assert "[secret]" in text


def test_an_exception_is_one_line_with_its_trace():
    stream, _ = made()
    try:
        fail("no route\nto host")
    except RuntimeError:
        structlog.get_logger().exception("probe_failed", backend="lab")
    (line,) = lines(stream)
    assert line["level"] == "error"
    assert line["error"] == "RuntimeError: no route\nto host"
    assert line["trace"].startswith("Traceback")
    assert line["trace"].endswith("to host")


def test_libraries_are_heard_from_warning_on_as_one_event():
    stream, _ = made()
    logging.getLogger("uvicorn.error").warning("bad %s", "request\n<3>forged")
    logging.getLogger("apscheduler").info("added job")
    (line,) = lines(stream)
    assert line["event"] == "library"
    assert line["logger"] == "uvicorn.error"
    assert line["text"] == "bad request\n<3>forged"


def test_values_that_json_lacks_are_still_written():
    stream, _ = made()
    structlog.get_logger().info("odd", nan=float("nan"), inf=float("-inf"), what=object, s={1})
    (line,) = lines(stream)
    assert line["nan"] == "nan"
    assert line["inf"] == "-inf"
    assert line["what"] == "<class 'object'>"
    assert line["s"] == [1]


def test_a_terminal_gets_a_readable_line_and_color_only_for_trouble():
    stream, _ = made(terminal=True, color=True)
    structlog.get_logger().info("service_moved", service="chat", why="colab is down")
    structlog.get_logger().warning("dns_trouble")
    calm, trouble = stream.getvalue().splitlines()
    assert calm.endswith('info     service_moved  service=chat  why="colab is down"')
    assert trouble.startswith("\x1b[33m")
    assert trouble.endswith("\x1b[0m")


def test_a_closed_stream_does_not_stop_the_daemon():
    stream, _ = made()
    stream.close()
    structlog.get_logger().info("going_on")
