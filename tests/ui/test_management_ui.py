"""A person uses the management UI: publishes commands, reads replies, sees workers and dead letters.

Started by run.sh, which brings up the broker and the first worker. The steps build on each other, so the first that
fails ends the test; what the browser showed then is saved in the folder named by the argument.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from management_ui import ManagementUi, eventually

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ["RABBITRY_HOME"])
QUEUES = ["users.create", "users.get", "users.award", "users.promote", "users.list", "users.dead", "reply.console"]


def same(actual, expected):
    """An assertion that says what it saw."""
    assert actual == expected, f"{actual!r} is not {expected!r}"
    return True


def run(*command):
    return subprocess.run([str(word) for word in command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def workers(*arguments):
    return run("bin/workers.sh", *arguments)


def worker_name():
    """What the worker calls itself in the UI."""
    return f"{socket.gethostname()}:{workers('pids').strip()}"


def management_url():
    state = dict(line.split("=", 1) for line in (HOME / "state.env").read_text().splitlines())
    return f"http://127.0.0.1:{urlsplit(state['AMQP_MANAGEMENT_URL']).port}/"


def user(name):
    return {"username": name, "email": f"{name}@example.com"}


def body_of(name):
    return json.dumps(user(name), separators=(",", ":"))


def stored(name):
    """The user as the command line gets it."""
    command = [os.environ["RABBITRY"], "users", "get", name, "--json"]
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert found.returncode == 0, found.stdout.strip()
    return json.loads(found.stdout)


def is_created(name):
    created = {**user(name), "points": 0, "status": "Bronze"}
    eventually(f"user {name} is created", lambda: same(stored(name), created))


def replies(ui, count):
    """The replies in reply.console by their correlation ids, each with its JSON."""
    ui.open_queue("reply.console")
    eventually(f"{count} replies wait", lambda: same(ui.ready(), count))
    messages = ui.messages(10)
    same(len(messages), count)
    return {message.properties["correlation_id"]: (message.properties, json.loads(message.body)) for message in messages}


# ---- the steps


def log_in(ui):
    """Log in as guest"""
    ui.log_in("guest", "guest")


def queues_are_listed(ui):
    """The Queues page lists a queue per command, the dead letters and reply.console"""
    ui.open_tab("Queues")
    eventually("the queues are listed", lambda: same([name for name in QUEUES if name not in ui.page()], []))


def consumer_is_seen(ui):
    """The page of users.create shows the worker as its consumer"""
    ui.open_queue("users.create")
    eventually("the consumer is seen", lambda: same(ui.consumer_tags(), [f"users.create@{worker_name()}"]))


def bare_body_is_executed(ui):
    """A bare body creates a user"""
    ui.type_message(body_of("ann"))
    ui.publish()
    is_created("ann")


def connections_are_named(ui):
    """The Connections page shows the worker's connections by name"""
    ui.open_tab("Connections")
    for purpose in ["commands", "replies"]:
        name = f"users worker {worker_name()} ({purpose})"
        eventually(f"connection {name!r} is seen", lambda: name in ui.page())


def reply_is_read(ui):
    """With reply_to, the new user can be read in reply.console"""
    ui.open_queue("users.create")
    ui.type_message(body_of("bob"), reply_to="reply.console", correlation_id="first")
    take_screenshot(ui)
    ui.publish()
    properties, body = replies(ui, 1)["first"]
    same(body, {**user("bob"), "points": 0, "status": "Bronze"})
    same(
        (properties["content_type"], properties["status"], properties["type"]),
        ("application/json", "201", "users.create.reply"),
    )


def refusal_is_read(ui):
    """The same body again is refused, and the reply says why"""
    ui.open_queue("users.create")
    ui.type_message(body_of("bob"), reply_to="reply.console", correlation_id="second")
    ui.publish()
    properties, body = replies(ui, 2)["second"]
    same((properties["content_type"], body["code"], body["status"]), ("application/problem+json", "user_exists", 409))


def message_waits(ui):
    """Without a worker the message waits, and the page counts it"""
    workers("stop")
    ui.open_queue("users.create")
    eventually("no consumer is left", lambda: same(ui.consumer_tags(), []))
    ui.type_message(body_of("carl"))
    ui.publish()
    eventually("one message waits", lambda: same(ui.ready(), 1))


def message_is_taken(ui):
    """A new worker takes it"""
    workers("start", 1)
    eventually("no message waits", lambda: same(ui.ready(), 0))
    tag = f"users.create@{worker_name()} (full prefetch)"
    eventually("the new consumer is seen", lambda: same(ui.consumer_tags(), [tag]))
    is_created("carl")


def dead_letter_is_read(ui):
    """A bad body without reply_to ends in users.dead with its reason"""
    ui.open_queue("users.create")
    bad = '{"username":"dora"}'
    ui.type_message(bad)
    ui.publish()
    ui.open_queue("users.dead")
    eventually("one dead letter is there", lambda: same(ui.ready(), 1))
    [letter] = ui.messages(1)
    same((letter.body, letter.properties["code"], letter.properties["queue"]), (bad, "invalid", "users.create"))
    assert "email" in letter.properties["detail"], letter.properties["detail"]


STEPS = [
    log_in,
    queues_are_listed,
    consumer_is_seen,
    bare_body_is_executed,
    connections_are_named,
    reply_is_read,
    refusal_is_read,
    message_waits,
    message_is_taken,
    dead_letter_is_read,
]


def take_screenshot(ui):
    """For docs/management-ui.md: the consumer and the message, without the graphs above them."""
    if os.environ.get("SCREENSHOT"):
        ui.close_section("Overview")
        eventually("the consumer is seen", ui.consumer_tags)
        ui.screenshot(ROOT / os.environ["SCREENSHOT"])


def main(out):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed = 0
    ui = None
    try:
        ui = ManagementUi(management_url(), HOME / "chromium")
        for step in STEPS:
            began = time.monotonic()
            step(ui)
            passed += 1
            print(f"ok   {step.__doc__} ({time.monotonic() - began:.1f} s)", flush=True)
    except Exception as error:
        doing = STEPS[passed].__doc__
        print(f"FAIL {doing}: {error or type(error).__name__}", flush=True)
        if ui:
            ui.screenshot(out / "failure.png")
            print(f"see  {out / 'failure.png'}, and the workers' logs beside it")
    finally:
        if ui:
            ui.close()
    failed = passed < len(STEPS)
    print(f"{passed} passed, {int(failed)} failed")
    sys.exit(failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
