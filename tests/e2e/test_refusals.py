"""What prevents a start costs one clear line and the right exit status, and leaves nothing half done."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import httpx
import pytest

from tests.e2e.kit import until


def refused(world, code: int, *said: str) -> str:
    """The daemon does not start; gives what it said."""
    assert world.daemon.close() == code, world.log()
    text = world.log().strip()
    assert "Traceback" not in text
    if code != 5:  # a configuration may have several problems, told at once
        assert text.splitlines()[-1].startswith("error: "), text
    assert text.count("error: ") == 1, text
    for one in said:
        assert one in text, text
    return text


def test_a_port_in_use_is_named_and_the_other_program_undisturbed(world):
    other = world.counted("alpha")
    world.server["listen"] = f"127.0.0.1:{other.port}"
    world.boot(wait=False)
    refused(world, 1, f"127.0.0.1:{other.port} is in use by another program")
    assert httpx.get(f"http://127.0.0.1:{other.port}/v1/models").status_code == 200


def test_a_state_folder_that_cannot_be_made_is_named(world):
    world.counted("alpha")
    world.boot(wait=False, STATE_DIRECTORY="/proc/aion-test")
    refused(world, 1, "/proc/aion-test")


def test_a_database_that_is_newer_or_none_at_all_is_left_as_it_is(world):
    world.serve_from("alpha")
    world.boot()
    assert world.stop()[0] == 0
    path = world.state / "aion.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    newer = path.read_bytes()
    no_database = b"not a database" * 100
    cases = ((newer, 5, "newer"), (no_database, 1, "not a SQLite database"))
    for content, code, said in cases:
        for beside in world.state.glob("aion.db-*"):
            beside.unlink()
        path.write_bytes(content)
        world.log_path.unlink()
        world.boot(wait=False)
        assert refused(world, code, said).count("\n") == 0
        assert path.read_bytes() == content


def test_a_second_daemon_on_the_same_database_is_refused(world):
    world.serve_from("alpha")
    world.boot()
    first, log = world.daemon, world.log_path
    world.log_path = world.folder / "second.log"
    world.boot(wait=False)
    refused(world, 1, f"in use by process {first.pid}")
    world.daemon, world.log_path = first, log
    assert world.serves("alpha")["state"] == "serving"


def test_a_credential_that_others_can_read_is_refused(world):
    world.counted("alpha")
    world.write()
    (world.folder / "credentials" / "admin_token").chmod(0o644)
    world.boot(wait=False)
    refused(world, 5, "admin_token", "chmod")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[server\n", "not TOML"),
        ("[backends.a]\nkind = 'static'\nurll = 'http://127.0.0.1:1'\n", "did you mean `url`?"),
    ],
)
def test_a_bad_configuration_is_shown_with_its_line_and_nothing_is_made(world, wrong, said):
    world.write()
    world.config.write_text(wrong)
    world.launch()
    text = refused(world, 5, said, str(world.config))
    assert "^" in text
    assert not world.state.exists()


def test_what_clients_send_is_refused_in_one_line_and_the_daemon_goes_on(world):
    world.serve_from("alpha")
    world.boot()
    world.serves("alpha")
    ask = world.http.post
    bearer = world._bearer
    pin = "/api/services/chat/pin"
    cases = [
        (ask("/api/pause"), 401),
        (ask("/api/pause", headers={"Authorization": "Bearer wrong"}), 401),
        (ask("/api/services/caht/failover", headers=bearer), 404),
        (ask(pin, json={"backend": "alpah"}, headers=bearer), 404),
        (ask(pin, content=b"{", headers=bearer), 422),
        (ask(pin, content=b"[" * 200_000, headers=bearer), 422),
        (ask(pin, json={"backend": "alpha", "extra": 1}, headers=bearer), 422),
        (ask(pin, content=b"x" * 3_000_000, headers=bearer), 413),
    ]
    for number, (answer, status) in enumerate(cases):
        assert answer.status_code in (status, 400 if status == 422 else status), (number, answer)
        assert answer.headers["content-type"].startswith("application/problem+json"), number
        assert "\n" not in answer.json()["detail"], number
    assert "did you mean" in cases[2][0].json()["detail"]
    assert world.serves("alpha")["epoch"] == 1
    until(lambda: world.http.get("/healthz").status_code == 200, "it goes on")
