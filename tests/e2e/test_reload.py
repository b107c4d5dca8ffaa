"""The configuration is read again while everything goes on."""

from __future__ import annotations

import itertools
import signal
import statistics

from tests.e2e.kit import until


def test_a_reload_drops_no_probe_and_no_connection(world):
    world.serve_from("alpha")
    counted = world.counted("beta")
    world.boot()
    world.serves("alpha")
    world.all_up()
    listener = world.listen()
    until(lambda: listener.events, "the first event")
    before = len(counted.probed_at)
    for number in range(8):
        world.health["fall"] = 3 + number % 2
        world.tables["backends.alpha"]["priority"] = 10 + number
        world.write()
        answer = world.post("reload")
        assert answer.status_code == 200, answer.text
        count = len(counted.probed_at)
        until(lambda count=count: len(counted.probed_at) > count, "probes go on")
    times = counted.probed_at[before - 1 :]
    gaps = [after - one for one, after in itertools.pairwise(times)]
    assert statistics.median(gaps) < 1.5, gaps  # 0.55 s at most; each holds a reload
    assert max(gaps) < 10.0, gaps  # a busy machine
    assert not listener.ended
    world.stop_backend("alpha")
    until(lambda: listener.events[-1]["active"]["backend"] == "beta", "the stream goes on")
    assert world.health_of("beta") == "up"


def test_a_bad_file_is_refused_and_the_last_good_one_stays_in_force(world):
    world.serve_from("alpha", "beta")
    world.boot()
    world.serves("alpha")
    good = world.config.read_text()
    world.config.write_text(good.replace("priority", "prioritee", 1))
    refused = world.aion("reload", "-y")
    assert refused.returncode in (1, 5)
    assert "prioritee" in refused.stderr
    assert "Traceback" not in refused.stderr
    until(lambda: "config_refused" in world.kinds(), "an incident")
    world.config.write_text("[[[")
    world.daemon.signal(signal.SIGHUP)
    until(lambda: "reload_refused" in world.log(), "the log says so")
    assert world.serves("alpha")["state"] == "serving"
    world.config.write_text(good)
    world.daemon.signal(signal.SIGHUP)
    until(lambda: "config_refused" not in world.kinds(), "the incident is closed")


def test_an_active_backend_that_the_new_file_lacks_is_left(world):
    world.serve_from("alpha", "beta")
    dns = world.cloudflare()
    world.boot()
    epoch = world.serves("alpha")["epoch"]
    world.all_up()
    del world.tables["backends.alpha"]
    world.write()
    done = world.aion("reload", "-y")
    assert done.returncode == 0, done.stderr
    assert "alpha" in done.stdout + done.stderr
    assert world.serves("beta", 5)["epoch"] > epoch
    until(lambda: dns.resolve() == ["93.184.216.2"], "the record follows")
    assert world.http.get("/api/backends/alpha", headers=world._bearer).status_code == 404
    world.crash()
    world.boot()
    world.serves("beta")


def test_a_new_backend_is_probed_and_a_better_one_moved_to(world):
    world.serve_from("beta")
    world.boot()
    world.serves("beta")
    port = world.start("alpha")
    url = f"http://127.0.0.1:{port}"
    world.tables["backends.alpha"] = {**world.tables["backends.beta"], "url": url, "priority": 1}
    world.write()
    world.daemon.signal(signal.SIGHUP)
    world.serves("alpha")
