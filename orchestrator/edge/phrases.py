"""The words of every message, in English; `locale/` holds them in other languages.

Placeholders are named; the fuller form comes first, and the first form whose placeholders are all
known is used. A sentence tells what is so, or what the operator can do; there is no third sort.
"""

from __future__ import annotations

from dataclasses import dataclass


def N_(message: str) -> str:  # noqa: N802 - the name that gettext's tools look for
    """Mark a phrase for the catalogs; it is translated when it is used."""
    return message


@dataclass(frozen=True, slots=True)
class Phrases:
    """What there is to say of one kind of incident; `over`: its title when it has ended."""

    titles: tuple[str, ...] = ()
    body: tuple[str, ...] = ()
    over: tuple[str, ...] = ()


SEVERITIES = {"info": N_("Info"), "warning": N_("Warning"), "critical": N_("Critical")}

FRAMES = {
    "reminder": (N_("Still, for {lasted}: {title}"), N_("Still: {title}")),
    "escalated": (
        N_("Nobody has answered, for {lasted}: {title}"),
        N_("Nobody has answered: {title}"),
    ),
    "acknowledged": (N_("{by} is on it: {title}"), N_("Somebody is on it: {title}")),
    "over": (N_("{title}, after {lasted}"), N_("{title}")),
    "closed": (N_("Over, after {lasted}: {title}"), N_("Over: {title}")),
    "ack": (N_("To stop the reminders: aion incident ack {incident}"),),
}

BATCH_TITLE = N_("{title}, and {count} more")
BATCH_REST = N_("… and {count} more; all that is open: aion incident list")
TEST_TITLE = N_("Test message")
TEST_BODY = N_("This is what a message from aion looks like. Nothing is wrong.")

KINDS: dict[str, Phrases] = {
    "moved": Phrases(
        titles=(N_("{service} moved from {old} to {new}"), N_("{service} is now served by {new}")),
        body=(N_("Why: {reason}."),),
    ),
    "backend_down": Phrases(
        titles=(N_("{backend} is down"),),
        body=(N_("{reason}."), N_("It served {service}."), N_("It was serving {services}.")),
        over=(N_("{backend} is up again"),),
    ),
    "service_down": Phrases(
        titles=(N_("Nobody can serve {service}"),),
        body=(
            N_("{reason}."),
            N_("The next hope is at {retry_at}."),
            N_("To see why each backend cannot: aion explain {service}"),
        ),
        over=(N_("{service} is served again"),),
    ),
    "flapping": Phrases(
        titles=(N_("{backend} keeps falling"),),
        body=(
            N_("It went down {falls} times within an hour."),
            N_("It has to stay up longer than usual ({wait}) before it is preferred again."),
        ),
        over=(N_("{backend} has been steady"),),
    ),
    "denied": Phrases(
        titles=(N_("{backend} refuses our key"),),
        body=(
            N_("{reason}."),
            N_("Check its key, then: aion reload"),
        ),
        over=(N_("{backend} accepts our key again"),),
    ),
    "canary_failing": Phrases(
        titles=(N_("{backend} answers, but completes nothing"),),
        body=(
            N_("{reason}."),
            N_("It serves only when nobody better can. Look at its engine's own log."),
        ),
        over=(N_("{backend} completes prompts again"),),
    ),
    "models_missing": Phrases(
        titles=(N_("{backend} does not have {models}"),),
        body=(N_("Load the model there, or change `models` in the configuration."),),
        over=(N_("{backend} has all its models"),),
    ),
    "isolated": Phrases(
        titles=(N_("aion itself has lost its network"),),
        body=(
            N_("{failed} of {total} control addresses did not answer."),
            N_("No backend is judged and nothing is moved until the network is back."),
        ),
        over=(N_("aion has its network again"),),
    ),
    "inbound_lost": Phrases(
        titles=(N_("No heartbeat reaches aion"),),
        body=(
            N_("All sessions ({sessions}) fell silent together while probes still pass."),
            N_("Check the public address, its tunnel or proxy, and its certificate."),
        ),
        over=(N_("Heartbeats reach aion again"),),
    ),
    "dns_foreign": Phrases(
        titles=(N_("{name} holds a record that is not ours"),),
        body=(
            N_("Found there: {detail}."),
            N_("It is not touched. To take it over: aion dns sync {service} --apply"),
        ),
        over=(N_("{name} is ours"),),
    ),
    "dns_drift": Phrases(
        titles=(N_("Somebody changed {name}"),),
        body=(
            N_("Found there: {detail}."),
            N_("To put it back: aion dns sync {service} --apply"),
        ),
        over=(N_("{name} is as it should be"),),
    ),
    "dns_newer": Phrases(
        titles=(N_("Another aion has taken over {name}"),),
        body=(
            N_("Found there: {detail}."),
            N_("Stop the other one, then: aion dns sync {service} --apply"),
        ),
        over=(N_("{name} is ours again"),),
    ),
    "dns_unreachable": Phrases(
        titles=(N_("{name} cannot be brought up to date"), N_("The DNS provider does not answer")),
        body=(
            N_("{detail}."),
            N_("Discovery goes on; the name follows once the provider answers."),
        ),
        over=(N_("{name} is up to date"), N_("The DNS provider answers again")),
    ),
    "dns_refused": Phrases(
        titles=(N_("The DNS provider refuses to change {name}"),),
        body=(N_("{detail}."), N_("To check the token and the zone: aion doctor")),
        over=(N_("{name} is up to date"),),
    ),
    "hard_pin_dead": Phrases(
        titles=(N_("{service} is pinned hard to {backend}, which cannot serve"),),
        body=(N_("{reason}."), N_("To let it move: aion unpin {service}")),
        over=(N_("{service} is no longer held by a dead backend"),),
    ),
    "paused_dead": Phrases(
        titles=(N_("{service} is with {backend}, which cannot serve, and aion is paused"),),
        body=(N_("{reason}."), N_("To let it move: aion resume")),
        over=(N_("{service} is no longer held by a dead backend"),),
    ),
    "paused": Phrases(
        titles=(
            N_("{by} paused aion until {until}"),
            N_("{by} paused aion"),
            N_("aion is paused until {until}"),
            N_("aion is paused"),
        ),
        body=(N_("It only watches: nothing is moved or published. To end it: aion resume"),),
        over=(N_("aion acts again"),),
    ),
    "clock_jump": Phrases(
        titles=(N_("The machine stood still or its clock jumped, by {gap}"),),
        body=(N_("Everything is looked at again at once; the last verdicts stand meanwhile."),),
        over=(N_("The clock runs evenly again"),),
    ),
    "rotation_failed": Phrases(
        titles=(N_("{service} could not be handed from {old} to {new}"),),
        body=(N_("{reason}."), N_("{old} goes on serving as long as it can.")),
        over=(N_("{service} has been handed over"),),
    ),
    "alerts_down": Phrases(
        titles=(N_("Messages do not get through {subject}"),),
        body=(N_("{detail}."), N_("To try it: aion alert test")),
        over=(N_("Messages get through {subject} again"),),
    ),
    "disk_full": Phrases(
        titles=(N_("The disk is full"),),
        body=(
            N_("{detail}."),
            N_("Free some space: moves go on from a small reserve, and stop when it is used up."),
        ),
        over=(N_("There is room on the disk again"),),
    ),
    "job_quarantined": Phrases(
        titles=(N_("The job {subject} crashed twice and is not run any more"),),
        body=(N_("{detail}."), N_("To try it again: aion job run {subject}")),
        over=(N_("The job {subject} runs again"),),
    ),
    "backup_failed": Phrases(
        titles=(N_("The backup {subject} failed"),),
        body=(N_("{detail}."), N_("To try it again: aion backup run {subject}")),
        over=(N_("The backup {subject} is well again"),),
    ),
    "backup_stale": Phrases(
        titles=(N_("The backup {subject} is out of date"),),
        body=(N_("{detail}."), N_("To see what there is: aion backup list {subject}")),
        over=(N_("The backup {subject} is up to date again"),),
    ),
    "replaced": Phrases(
        titles=(N_("This aion was rebuilt on another machine and only observes now"),),
        body=(
            N_("{detail}."),
            N_("Stop aion here. If this one is to go on: stop the other, aion rebuild --force."),
        ),
        over=(N_("This aion is the one that goes on"),),
    ),
    "backup_filling": Phrases(
        titles=(N_("A place of the backup {subject} will be full soon"),),
        body=(N_("{detail}."), N_("Make room there, or keep less.")),
        over=(N_("The places of the backup {subject} have room again"),),
    ),
    "restart_needed": Phrases(
        titles=(N_("Please start {backend}"),),
        body=(N_("{reason}."), N_("Open {url}")),
        over=(N_("{backend} has been started"),),
    ),
    "start_failed": Phrases(
        titles=(N_("aion cannot learn how {unread} is"), N_("{backend} could not be started")),
        body=(
            N_("{reason}."),
            N_("What runs there costs all the same; what is amiss with {unread}: aion doctor"),
            N_("It is tried again at {retry_at}, if it is still needed."),
            N_("To try it now: aion backend start {failed}"),
        ),
        over=(N_("{backend} can be started again"),),
    ),
    "went_off": Phrases(
        titles=(N_("{backend} did not last"),),
        body=(
            N_("Why: {reason}."),
            N_("It may be started again from {retry_at} on, if it is still needed."),
            N_("To start it now: aion backend start {backend}"),
        ),
        over=(N_("{backend} can be started again"),),
    ),
    "stop_failed": Phrases(
        titles=(N_("{backend} does not stop"),),
        body=(
            N_("{reason}."),
            N_("What runs there may cost money or quota: look at its provider's own page."),
        ),
        over=(N_("{backend} is off"),),
    ),
    "taken_over": Phrases(
        titles=(N_("{backend} is at another address now: {host}"),),
        body=(
            N_("A new session took the place of one that was alive, at {old}."),
            N_("If it was not you who started it: aion token revoke {backend}"),
        ),
    ),
    "start_soon": Phrases(
        titles=(N_("Please start {backend} by {latest}"), N_("Please start {backend} soon")),
        body=(
            N_("From {gap_at} on nobody else can serve {service}."),
            N_("{reason}."),
            N_("Open {url}"),
        ),
        over=(N_("Nobody needs to start {backend} for {service} now"),),
    ),
    "session_ending": Phrases(
        titles=(N_("The session of {backend} ends at {ends_at}"), N_("{backend} ends soon")),
        body=(N_("To have no gap, start another one now: {url}"),),
        over=(N_("{backend} need not be watched any more"),),
    ),
    "meter_low": Phrases(
        titles=(
            N_("{meter}: {percent} percent of {limit} is used"),
            N_("{meter}: {limit} will not last at this rate"),
        ),
        body=(N_("It starts again at {until}."), N_("To see all meters: aion meters")),
        over=(N_("{meter} will do"),),
    ),
    "meter_spent": Phrases(
        titles=(N_("{meter}: all of {limit} is used"),),
        body=(
            N_("There is more at {until}."),
            N_("Nothing that uses it is chosen or started before."),
        ),
        over=(N_("{meter} has something left again"),),
    ),
    "name_unreachable": Phrases(
        titles=(N_("{name} does not answer from outside"),),
        body=(N_("{detail}."), N_("Check its DNS record, its tunnel or proxy, its certificate.")),
        over=(N_("{name} answers from outside again"),),
    ),
    "config_refused": Phrases(
        titles=(N_("The new configuration was refused"),),
        body=(N_("{detail}."), N_("The last good one stays in force. See: aion config check")),
        over=(N_("The new configuration is in force"),),
    ),
}
