"""`[backups.NAME]`: what is refused, and the plan that it comes to."""

import json

import pytest

from jobs.backup.form import STATE, Export, Plan
from orchestrator.errors import ConfigError
from orchestrator.settings import diff, load

BACKEND = '[backends.lab]\nkind = "static"\nengine = "ollama"\nurl = "http://127.0.0.1:9"\n'
WHOLE = 'schedule = "0 3 * * *"\ndsn = { credential = "pg" }\ncopies = ["file:/mnt/a"]\n'
BASE = f"{WHOLE}itself = false\n"
ENVIRON = {
    "AION_CREDENTIAL_HUB": "hf_canary",
    "AION_CREDENTIAL_PG": "postgresql://me:canary-pw@h/d",
    "AION_CREDENTIAL_CONF": "[drive]\ntype = drive\ntoken = {}\n",
    "AION_CREDENTIAL_KEY": '{\n "type": "service_account"\n}',
    "AION_CREDENTIAL_DELETER": '{"type": "service_account", "n": 2}',
}


@pytest.fixture
def backup(tmp_path):
    def read(text, name="main"):
        path = tmp_path / "aion.toml"
        path.write_text(f"{BACKEND}[backups.{name}]\n{text}")
        return load(path, environ={**ENVIRON, "STATE_DIRECTORY": str(tmp_path / "state")})

    return read


def test_the_least_that_a_backup_needs_makes_a_whole_plan_that_travels_as_json(backup, tmp_path):
    config = backup(BASE)
    (one,) = config.backups
    assert one.plan.spool == str(tmp_path / "state/backups/main")
    assert one.plan.dsn == "postgresql://me:canary-pw@h/d"
    assert one.stale_after_s == 26 * 3600  # two hours after the next is due
    assert not one.drills
    assert Plan.from_json(json.loads(json.dumps(one.plan.to_json()))) == one.plan
    assert "canary-pw" in set(config.secrets())
    assert "canary-pw" not in repr(config)
    assert any("every copy is on this machine" in line for line in config.warnings)
    assert any("no drill is set" in line for line in config.warnings)


def test_a_store_may_be_asked_at_another_address(backup):
    more = BASE.replace('"file:/mnt/a"', '"gs://bkt/p", "hf://datasets/me/name"')
    config = backup(
        more
        + 'google = { credential = "key" }\nhub_token = { credential = "hub" }\n'
        + 'google_api = "https://storage.example.org"\nhub_api = "https://hub.example.org"\n'
    )
    bucket, hub = config.backups[0].plan.copies
    assert bucket.access.endpoint == "https://storage.example.org"
    assert hub.access.endpoint == "https://hub.example.org"
    emulated = 'google_api = "http://127.0.0.1:9023"\nhub_api = "http://localhost:9024"\n'
    assert backup(more + emulated).backups[0].plan.copies[0].access.google == ""
    with pytest.raises(ConfigError, match="must begin with https://"):
        backup(more + emulated.replace("127.0.0.1", "storage.example.org"))
    with pytest.raises(ConfigError, match="needs the credential `google`"):
        backup(more + 'google_api = "https://storage.example.org"\n')


def test_each_store_is_given_its_own_key_and_no_other(backup):
    config = backup(
        BASE.replace('"file:/mnt/a"', '"rclone:drive:b", "gs://bkt/p", "file:/mnt/a"')
        + 'rclone_config = { credential = "conf" }\ngoogle = { credential = "key" }\n'
        'google_expire = { credential = "deleter" }\ndelete = false\n'
    )
    drive, bucket, folder = config.backups[0].plan.copies
    assert (bool(drive.access.rclone_config), drive.access.google) == (True, "")
    assert (bucket.access.rclone_config, bucket.access.can_delete) == ("", False)
    assert bucket.expire is not None
    assert bucket.expire.google != bucket.access.google
    assert folder.access.rclone_config == folder.access.google == ""


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (('"file:/mnt/a"', '"file:/mnt/a", "rclone:x:$(id)"'), 8, "cannot stand in a path"),
        (('"file:/mnt/a"', '"s3://b"'), 8, "is no place for a copy"),
        (('"file:/mnt/a"', '"gs://bucket"'), 8, "needs the credential `google`"),
        (('"file:/mnt/a"', '"rclone:x:y"'), 8, "needs `rclone_config`"),
        (('"file:/mnt/a"', '"file:/mnt/a", "file:/mnt/a/"'), 8, "the same place twice"),
        (("0 3 * * *", "0 3 * *"), 6, "is not a cron line"),
        (("0 3 * * *", "0 3 31 2 *"), 6, "never comes round"),
        (('"pg"', '"deleter"'), 7, "does not hold a DSN"),
        (('"pg"', '"nowhere"'), 7, "credential `nowhere` not found"),
        (("copies", 'stale_after = "24h"\ncopies'), 8, "not longer than the schedule's own 1d"),
        (("copies", "keep = { daily = 0, weekly = 0, monthly = 0 }\ncopies"), 8, "keeps nothing"),
        (("copies", 'drill = "hourly"\ncopies'), 8, "drill"),
        (("copies", 'encrypt = { recipient = "age1x" }\ncopies'), 8, "expected the public key"),
        (("copies", "colour = 1\ncopies"), 8, "unknown key"),
    ],
)
def test_what_is_wrong_is_shown_with_its_line_and_a_caret(backup, change, line, said):
    with pytest.raises(ConfigError) as caught:
        backup(BASE.replace(*change))
    text = str(caught.value)
    assert said in text
    assert f"{line} | " in text
    assert "^" in text


EXPORT = '[[backups.main.export]]\nname = "chat"\nquery = "select id from t"\nkey = "id"\n'
SYNC = '[[backups.main.sync]]\nname = "logs"\nfrom = "file:/var/log/ai"\nto = ["file:/mnt/b"]\n'


def test_exports_and_syncs_become_parts_of_the_plan(backup):
    more = EXPORT + 'settle = "10m"\nkeep = 3\n' + SYNC + 'keep = 9\nbandwidth = "1.5MB"\n'
    (one,) = backup(BASE + 'bandwidth = "500kB"\n' + more).backups
    assert one.plan.exports == (Export("chat", "select id from t", "id", "wait", 600.0, 3),)
    assert one.plan.copies[0].access.bandwidth_bps == 500_000
    (sync,) = one.plan.syncs
    assert (sync.source.target.url, sync.keep, sync.gone) == ("file:/var/log/ai", 9, 0.5)
    assert {c.access.bandwidth_bps for c in (sync.source, *sync.to)} == {1_500_000}
    assert Plan.from_json(json.loads(json.dumps(one.plan.to_json()))) == one.plan


def test_a_backup_may_have_syncs_alone_and_the_secrets_of_their_places_are_known(backup):
    more = SYNC.replace("file:/mnt/b", "gs://bkt/p")
    config = backup('schedule = "0 3 * * *"\ngoogle = { credential = "key" }\n' + more)
    (one,) = config.backups
    assert (one.plan.dsn, one.plan.copies, one.plan.dumps) == ("", (), False)
    assert ENVIRON["AION_CREDENTIAL_KEY"] in set(one.secrets())
    assert not any("drill" in line for line in config.warnings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE.replace("dsn", "#dsn") + EXPORT, "`dsn` is missing"),
        (BASE.replace("copies", "#copies"), "`copies` is missing"),
        (BASE + EXPORT.replace("select id from t", "drop table t"), "neither select nor with"),
        (BASE + EXPORT + EXPORT, "two are called chat"),
        (BASE + EXPORT.replace('"chat"', '"../x"'), "a name is"),
        (BASE + EXPORT + 'colour = "red"\n', "unknown key"),
        (BASE + EXPORT + 'late = "maybe"\n', 'expected "wait" or "ignore"'),
        (BASE + SYNC.replace("from", "form"), "did you mean `from`?"),
        (BASE + SYNC.replace("file:/mnt/b", "gs://bkt/p"), "needs the credential `google`"),
        (BASE + SYNC.replace("file:/mnt/b", "rclone:d:p"), "needs `rclone_config`"),
        (BASE + SYNC.replace("file:/mnt/b", "file:/var/log"), "are within each other"),
        (BASE + SYNC.replace("file:/mnt/b", "file:/mnt/a/x"), "is also where the copies of main"),
        (BASE + SYNC + SYNC.replace("logs", "more"), "is also where the files of main/logs"),
        (BASE + "delete = false\n" + SYNC, "takes `delete = true`"),
        (BASE + SYNC + 'bandwidth = "fast"\n', "expected bytes a second"),
        (BASE + SYNC + "gone = 1.5\n", "must be at most 1"),
        (BASE + SYNC.replace('["file:/mnt/b"]', '["s3://b"]'), "is no place for a copy"),
    ],
)
def test_what_is_wrong_with_exports_and_syncs_is_told_in_one_line_each(backup, text, said):
    with pytest.raises(ConfigError) as caught:
        backup(text)
    assert said in str(caught.value)


def test_a_drill_of_what_is_encrypted_needs_the_key(backup):
    key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    with pytest.raises(ConfigError, match=r"set encrypt\.identity"):
        backup(BASE + f'drill = "weekly"\nencrypt = {{ recipient = "{key}" }}\n')


def test_a_name_that_dumps_cannot_have_is_refused(backup):
    with pytest.raises(ConfigError, match="a backup's name is"):
        backup(BASE, name='"a.b"')


def test_a_reload_names_the_backup_that_changes_and_none_of_its_secrets(backup):
    old = backup(BASE)
    new = backup(BASE.replace("0 3", "0 4"))
    assert diff(old, new) == ["backup `main` changes: schedule"]
    assert diff(old, backup(BASE, name="other")) == [
        "backup `other` is added",
        "backup `main` is removed",
    ]


def test_a_credential_that_is_a_file_is_kept_whole(backup, tmp_path, capsys):
    from orchestrator.cli import root
    from orchestrator.cli.options import Given

    backup(
        BASE.replace("file:/mnt/a", "rclone:drive:b") + 'rclone_config = { credential = "conf" }\n'
    )
    source = tmp_path / "rclone.conf"
    source.write_text("[drive]\ntype = drive\n")

    def aion(*words):
        given = Given(config=tmp_path / "aion.toml")
        return root().main(words, prog_name="aion", standalone_mode=False, obj=given)

    aion("secret", "set", "conf", "--from-file", str(source))
    kept = tmp_path / "credentials" / "conf"
    assert kept.read_text() == source.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="one line"):
        aion("secret", "set", "pg", "--from-file", str(source))


# ── aion's own state ────────────────────────────────────────────────────────────────────────────

AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def state_of(config):
    """The backup of aion's own state, if there is one."""
    found = [one for one in config.backups if one.name == STATE]
    assert len(found) <= 1
    return found[0] if found else None


def test_every_place_of_every_backup_carries_aions_own_state_unless_it_says_not(backup, tmp_path):
    config = backup(
        WHOLE
        + "[backups.shop]\n"
        + WHOLE.replace("0 3", "0 5").replace('"file:/mnt/a"', '"file:/mnt/a", "file:/mnt/b"')
        + "[backups.last]\n"
        + BASE.replace("/mnt/a", "/mnt/c")
    )
    one = state_of(config)
    assert [copy.target.url for copy in one.plan.copies] == ["file:/mnt/a", "file:/mnt/b"]
    assert (one.schedule, one.plan.dsn, one.ping_url) == ("0 3 * * *", "", "")
    itself = one.plan.itself
    assert itself.database == str(tmp_path / "state" / "aion.db")
    assert itself.config == str(tmp_path / "aion.toml")
    assert itself.token == str(tmp_path / "state" / "admin_token")
    assert Plan.from_json(json.loads(json.dumps(one.plan.to_json()))) == one.plan
    assert state_of(backup(BASE)) is None
    assert any("goes to none of these places" in line for line in backup(BASE).warnings)


def test_without_a_recipient_no_credential_is_even_handed_over_and_that_is_said(backup):
    config = backup(WHOLE)
    assert state_of(config).plan.itself.credentials == {}
    assert any("credentials are not among" in line for line in config.warnings)
    config = backup(WHOLE + f'encrypt = {{ recipient = "{AGE}" }}\n')
    assert state_of(config).plan.itself.credentials == {"pg": ENVIRON["AION_CREDENTIAL_PG"]}
    assert not any("credentials are not among" in line for line in config.warnings)
    assert "canary-pw" not in repr(state_of(config))


def test_aions_own_state_may_have_a_table_of_its_own_and_be_all_there_is(backup):
    own = 'schedule = "0 */6 * * *"\ncopies = ["file:/mnt/own"]\n'
    one = state_of(backup(own, name=STATE))
    assert [copy.target.url for copy in one.plan.copies] == ["file:/mnt/own"]
    assert one.schedule == "0 */6 * * *"
    one = state_of(backup(f"{own}[backups.main]\n{WHOLE}", name=STATE))
    assert [copy.target.url for copy in one.plan.copies] == ["file:/mnt/own", "file:/mnt/a"]
    assert one.schedule == "0 */6 * * *"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("self", 'schedule = "0 3 * * *"\ncopies = ["file:/mnt/a"]\n', r"\[backups.aion-state\]"),
        (STATE, WHOLE, "of aion's own state, not of a database"),
        (STATE, 'schedule = "0 3 * * *"\ncopies = ["file:/a"]\nitself = false\n', "remove the ta"),
    ],
)
def test_what_is_neither_of_a_database_nor_of_aion_is_refused(backup, name, text, said):
    with pytest.raises(ConfigError, match=said):
        backup(text, name=name)
