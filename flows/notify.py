"""Telling somebody what happened: a command or a webhook, with a time limit. It never makes a run fail, and never
undoes a promotion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping

from pipeline.config import VARIABLE, NotifyConfig
from pipeline.redaction import redacted
from pipeline.registry.ledger import Move


def notify(config: NotifyConfig, event: str, experiment: str, line: str, move: Move | None = None) -> Iterator[str]:
    """Tell those whom the file names, where it names this event. Secrets in what is told are masked.

    Args:
        move: of the champion, where there was one.

    Yields:
        What went wrong, in one line each, for the log. Never the webhook itself: such URLs are secrets.
    """
    if event not in config.on:
        return
    said: dict[str, object] = {"event": event, "experiment": experiment, "text": redacted(line)}
    if move is not None:
        said |= {"model": move.model, "version": move.after, "previous": move.before, "who": move.who}
        said |= {"action": move.action, "evidence": [redacted(text) for text in move.evidence]}
    if config.command:
        problem = _command(config, said)
        if problem:
            yield f"the notification command {config.command[0]!r} {problem}"
    if config.webhook is not None:
        problem = _webhook(config, said)
        if problem:
            yield f"the notification webhook {problem}"


def tell_of_move(config: NotifyConfig, event: str, experiment: str, line: str, move: Move | None) -> None:
    """As `notify`, for a command that has moved the champion: what goes wrong is a warning on stderr."""
    for problem in notify(config, event, experiment, line, move):
        print(f"warning: {problem}; the champion is moved all the same", file=sys.stderr)


def _command(config: NotifyConfig, said: Mapping[str, object]) -> str | None:
    named = ("event", "experiment", "model", "version", "previous", "who", "action")
    environment = os.environ | {f"AUTOML_{n.upper()}": str(said[n]) for n in named if said.get(n) is not None}
    try:
        done = subprocess.run(
            config.command,
            input=f"{said['text']}\n",
            text=True,
            env=environment,
            capture_output=True,
            timeout=config.timeout,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {config.timeout:g} s"
    except OSError as error:
        return f"did not start: {error.strerror}"
    last = done.stderr.strip().splitlines()[-1:]
    return None if done.returncode == 0 else f"ended with exit code {done.returncode}: {' '.join(last)[:200]}"


def _webhook(config: NotifyConfig, said: Mapping[str, object]) -> str | None:
    assert config.webhook is not None
    missing = [name for name in VARIABLE.findall(config.webhook) if name not in os.environ]
    if missing:
        return f"needs the environment variable {missing[0]}, which is not set"
    url = VARIABLE.sub(lambda match: os.environ[match[1]], config.webhook)
    body = json.dumps(said).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=config.timeout):
            return None
    except urllib.error.HTTPError as error:
        with error:  # it is the answer, with its socket
            return f"answered {error.code}"
    except TimeoutError:
        return f"took longer than {config.timeout:g} s"
    except urllib.error.URLError as error:
        return f"cannot be reached: {error.reason}"
    except ValueError:
        return "is not a URL"
