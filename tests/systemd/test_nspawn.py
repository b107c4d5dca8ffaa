"""The unit under a real systemd: started, asked, reloaded, hung, stopped."""

from __future__ import annotations

import json

import pytest

from tests.systemd.conftest import TOKEN

pytestmark = [pytest.mark.nspawn, pytest.mark.timeout(300)]


def test_every_step_in_the_container_ran(boot):
    failed = {name: text for name, text in boot.items() if name.startswith("failed_")}
    assert failed == {}, [line.get("MESSAGE") for line in boot.get("journal", [])][-20:]
    assert "journal" in boot


def test_service_install_leaves_a_running_enabled_unit(boot):
    assert boot["install"]["code"] == 0, boot["install"]
    assert boot["enabled"].strip() == "enabled"
    assert boot["running"]["ActiveState"] == "active"


def test_it_runs_as_a_user_of_its_own_with_its_state_in_its_own_directory(boot):
    assert boot["uid"] >= 61184  # systemd's range for dynamic users
    assert boot["uid"] not in boot["known_users"]
    assert "aion.db" in boot["state_files"]


def test_the_credential_reaches_it_by_file_and_only_by_file(boot):
    assert boot["credentials"] == ["admin_token"]
    assert TOKEN not in boot["arguments"]
    assert TOKEN not in json.dumps(boot["journal"])


def test_status_answers_to_the_token_that_came_as_a_credential(boot):
    # Exit 3 is an answer too: the one backend of this configuration is down.
    assert boot["status"]["code"] in {0, 3}, boot["status"]
    assert json.loads(boot["status"]["out"])
    assert boot["status_wrong_token"]["code"] == 4, boot["status_wrong_token"]
    assert json.loads(boot["service_status"]["out"])["state"] == "active (running)"


def test_a_reload_keeps_the_process(boot):
    assert boot["reload"]["code"] == 0, boot["reload"]
    assert boot["after_reload"]["MainPID"] == boot["running"]["MainPID"]


def test_the_watchdog_kills_a_hung_daemon_and_systemd_starts_it_again(boot):
    assert boot["watchdog_s"] is not None, boot["after_hang"]
    assert boot["watchdog_s"] < 30
    assert int(boot["after_hang"]["NRestarts"]) == 1
    assert any("Watchdog timeout" in str(line.get("MESSAGE")) for line in boot["journal"])


def test_a_stop_is_graceful_and_quick_and_leaves_nothing_behind(boot):
    assert boot["stop"]["code"] == 0, boot["stop"]
    assert boot["stop"]["took_s"] <= 5
    assert (boot["stopped"]["ActiveState"], boot["stopped"]["Result"]) == ("inactive", "success")
    assert boot["left_over"] == []


def test_the_daemon_knows_which_boot_it_runs_in_though_the_kernels_word_is_hidden_from_it(boot):
    assert boot["boot_id"] == boot["kernels_boot_id"].strip().replace("-", "")


def test_the_journal_holds_json_with_priorities(boot):
    own = [line for line in boot["journal"] if line.get("_COMM") in {"aion", "python", "python3"}]
    entries = [json.loads(line["MESSAGE"]) for line in own if str(line["MESSAGE"])[:1] == "{"]
    assert entries
    assert all(entry["event"] and entry["level"] for entry in entries)
    priorities = {line["PRIORITY"] for line in own if str(line["MESSAGE"])[:1] == "{"}
    assert priorities <= {"2", "3", "4", "6", "7"}
