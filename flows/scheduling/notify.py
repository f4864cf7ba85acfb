"""Telling somebody what a run ended with: a command or a webhook, with a time limit. It never makes a run fail."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

from pipeline.config import VARIABLE, NotifyConfig


def notify(config: NotifyConfig, event: str, experiment: str, line: str) -> Iterator[str]:
    """Tell those whom the file names, where it names this event.

    Yields:
        What went wrong, in one line each, for the log. Never the webhook itself: such URLs are secrets.
    """
    if event not in config.on:
        return
    if config.command:
        problem = _command(config, event, experiment, line)
        if problem:
            yield f"the notification command {config.command[0]!r} {problem}"
    if config.webhook is not None:
        problem = _webhook(config, event, experiment, line)
        if problem:
            yield f"the notification webhook {problem}"


def _command(config: NotifyConfig, event: str, experiment: str, line: str) -> str | None:
    environment = os.environ | {"AUTOML_EVENT": event, "AUTOML_EXPERIMENT": experiment}
    try:
        done = subprocess.run(
            config.command, input=f"{line}\n", text=True, env=environment, capture_output=True, timeout=config.timeout
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {config.timeout:g} s"
    except OSError as error:
        return f"did not start: {error.strerror}"
    last = done.stderr.strip().splitlines()[-1:]
    return None if done.returncode == 0 else f"ended with exit code {done.returncode}: {' '.join(last)[:200]}"


def _webhook(config: NotifyConfig, event: str, experiment: str, line: str) -> str | None:
    assert config.webhook is not None
    missing = [name for name in VARIABLE.findall(config.webhook) if name not in os.environ]
    if missing:
        return f"needs the environment variable {missing[0]}, which is not set"
    url = VARIABLE.sub(lambda match: os.environ[match[1]], config.webhook)
    body = json.dumps({"event": event, "experiment": experiment, "text": line}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=config.timeout):
            return None
    except urllib.error.HTTPError as error:
        return f"answered {error.code}"
    except TimeoutError:
        return f"took longer than {config.timeout:g} s"
    except urllib.error.URLError as error:
        return f"cannot be reached: {error.reason}"
    except ValueError:
        return "is not a URL"
