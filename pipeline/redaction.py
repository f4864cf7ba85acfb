"""Secrets stay out of text: masked by their value where the environment names them, and by how they are written.

By value: what stands in an environment variable whose name says that it is a secret, and the password of every URL in
the environment. By form: ``scheme://user:password@host``, ``password=…``, ``token: …``. A secret that is neither is not
known to be one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Annotated, Any, Final
from urllib.parse import quote, quote_plus, unquote

from pydantic import AfterValidator

MASK: Final = "***"
SHORTEST: Final = 6
"""Shorter values are not masked by value: ``AUTH=true`` would blot out half of every text."""

_WORD: Final = r"(?:passw(?:or)?d|passphrase|secret|token|credentials?|api[_-]?key|access[_-]?key|private[_-]?key)"
_NAME: Final = re.compile(rf"{_WORD}|^(?:.*_)?(?:key|auth|pat|auth_string)$", re.IGNORECASE)
_URL: Final = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/?#'\"<>]*@", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/?#:@]*:([^\s/?#]+)@", re.IGNORECASE)
_ASSIGNED: Final = re.compile(
    rf"""([\w.-]*{_WORD}[\w-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|(?:bearer\s+)?[^\s,;&'"}})\]]+)""", re.IGNORECASE
)
_BEARER: Final = re.compile(r"\b((?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text with every secret that can be recognised in it replaced by ``***``."""
    for secret in _values(os.environ):
        text = text.replace(secret, MASK)
    text = _URL.sub(rf"\1{MASK}@", text)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return _BEARER.sub(rf"\1{MASK}", text)


Redacted = Annotated[str, AfterValidator(redacted)]
"""A field of a record that is kept, and cannot keep a secret."""


def _values(environment: Mapping[str, str]) -> list[str]:
    """Secrets of the environment in every form in which they may appear, the longest first."""
    known: set[str] = set()
    for name in list(environment):
        value = environment.get(name, "")  # other threads may change the environment meanwhile
        if _NAME.search(name):
            known.add(value.strip())
        known.update(_URL_PASSWORD.findall(value))
    plain = {part for value in known for part in (value, unquote(value), *value.splitlines())}
    forms = {
        form for value in plain for form in (value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1])
    }
    return sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)


def redact_logs() -> None:
    """Have every log record of this process redacted as it is made: those of Prefect go to its database."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def redacting(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        if isinstance(record.msg, str) or record.args:
            _redact_message(record)
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = redacted("".join(traceback.format_exception(*record.exc_info))).rstrip()
        return record

    redacting.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacting)


def _redact_message(record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except (TypeError, ValueError):
        return  # wrong arguments: logging itself says so
    if (safe := redacted(text)) != text:
        record.msg, record.args = safe, None


def redact_tracebacks() -> None:
    """Have the traceback of an error that nobody catches redacted."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)

    sys.excepthook = show
