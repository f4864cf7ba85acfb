"""YAML read defensively: no aliases, no tags, no duplicate keys, bounded size and depth, and the line of every key."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.text import MAX_SHOWN, shortened, shown

MAX_BYTES = 1_000_000
MAX_DEPTH = 64

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte costs half a second in C, and 20 in Python

Key = tuple[str | int, ...]

_FLOAT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")


@dataclass(slots=True)
class Source:
    """A parsed file: its value, and where every key stands."""

    file: str
    value: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)
    overridden: dict[Key, str] = field(default_factory=dict)

    def longest_known(self, path: Key) -> Key:
        """The longest beginning of `path` that the file or an override has."""
        while path and path not in self.lines and path not in self.overridden:
            path = path[:-1]
        return path

    def where(self, path: Key) -> tuple[str, int | None]:
        """File and line of a key; ``--set`` and no line where an override put it there."""
        if path in self.overridden:
            return f"--set {self.overridden[path]}", None
        return self.file, self.lines.get(path, 1)

    def override(self, text: str) -> None:
        """Apply ``a.b=c``; the value is read as YAML.

        Raises:
            ConfigError: no ``=``, a path through something that is no section, or a value that is not YAML.
        """
        name, separator, raw = text.partition("=")
        keys = tuple(name.strip().split("."))
        if not separator or not all(keys):
            raise ConfigError(f"--set must be key.path=value, but got {shown(text)}", "write for example search.seed=1")
        if keys[:2] == ("search", "space") and len(keys) > 3:
            keys = (*keys[:2], ".".join(keys[2:]))  # names in the space have dots of their own
        try:
            _check_depth(raw, f"--set {text}")
            value = _build(yaml.compose(raw, Loader=_LOADER), f"--set {text}", keys, {}, 0) if raw.strip() else None
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}: the value is not YAML", "quote it") from error
        section: Any = self.value
        for depth, key in enumerate(keys[:-1]):
            if section.get(key) is None:
                section[key] = {}
            if not isinstance(section[key], dict):
                raise ConfigError(f"--set {text}: `{'.'.join(keys[: depth + 1])}` is not a section", "check the path")
            section = section[key]
        section[keys[-1]] = value
        for end in range(1, len(keys) + 1):
            self.overridden.setdefault(keys[:end], text) if keys[:end] not in self.lines else None
        self.overridden[keys] = text


def parse_yaml(path: Path) -> Source:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, not a file, too large, not UTF-8, not YAML, or not a mapping.
    """
    if not _exists(path):
        near = (
            difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
            if path.parent.is_dir()
            else []
        )
        raise ConfigError(
            "no such experiment file", f"did you mean {near[0]}?" if near else "check the path", file=path
        )
    if not path.is_file():
        raise ConfigError("an experiment file must be a regular file", "name the YAML file itself", file=path)
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"an experiment file must be <= {MAX_BYTES} bytes, but has {path.stat().st_size}", file=path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"an experiment file must be UTF-8, but byte {error.start} is not", "save it as UTF-8", file=path
        ) from None
    except PermissionError:
        raise ConfigError("the experiment file cannot be read", "check its permissions", file=path) from None
    lines: dict[Key, int] = {}
    try:
        _check_depth(text, path)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            f"not valid YAML: {error.problem}",
            "check indentation and quotes",
            file=path,
            line=mark.line + 1 if mark else None,
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", "check for control characters", file=path) from None
    if node is None:
        raise ConfigError("the experiment file is empty", "write at least `name` and `data`", file=path)
    value = _build(node, str(path), (), lines, 0)
    if not isinstance(value, dict):
        raise ConfigError("an experiment file must be a mapping of sections", "start with `name:`", file=path, line=1)
    return Source(str(path), value, lines)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, say: there is no such file
        return False


def _check_depth(text: str, file: str | Path) -> None:
    """Refuse what would exhaust the parser's recursion, and anchors, before a tree is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(
                "anchors and aliases are not allowed", "write the value out", file=file, line=_line(event)
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"nesting must be <= {MAX_DEPTH} levels", "flatten it", file=file, line=_line(event))


def _line(event: yaml.Event) -> int | None:
    return None if event.start_mark is None else event.start_mark.line + 1


def _build(node: yaml.Node | None, file: str, path: Key, lines: dict[Key, int], depth: int) -> Any:
    if node is None:
        return None
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            at = key_node.start_mark.line + 1
            if key is None:
                raise ConfigError("keys must be plain text", "quote the key", file=file, line=at)
            if key in mapping:
                raise ConfigError(
                    f"duplicate key `{shortened(key, MAX_SHOWN)}`", "keep one of the two", file=file, line=at
                )
            lines[(*path, key)] = at
            mapping[key] = _build(value_node, file, (*path, key), lines, depth + 1)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, file, (*path, i), lines, depth + 1) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if path[:1] == ("checks",) and node.value == "off":
        return "off"  # the word itself: nothing there is true or false
    return _scalar(node, file, line)


def _scalar(node: yaml.ScalarNode, file: str, line: int) -> Any:
    """A scalar, without YAML 1.1's surprises: ``1e-3`` is a number; sexagesimals, octals and dates are refused."""
    tag, text = node.tag, node.value
    if tag == "tag:yaml.org,2002:str":
        return _finite(text, file, line) if not node.style and _FLOAT.fullmatch(text) else text
    if tag == "tag:yaml.org,2002:null":
        return None
    if tag == "tag:yaml.org,2002:bool":
        if text.lower() not in {"true", "false"}:
            raise ConfigError(
                f"{shown(text)} would be read as true or false",
                "write true or false, or quote the word",
                file=file,
                line=line,
            )
        return text.lower() == "true"
    if tag == "tag:yaml.org,2002:int":
        if not re.fullmatch(r"[-+]?(0|[1-9]\d{0,17})", text):
            raise ConfigError(
                f"{shown(text)} is not a plain decimal number",
                "write decimal digits only, or quote it",
                file=file,
                line=line,
            )
        return int(text)
    if tag == "tag:yaml.org,2002:float":
        return _finite(text.lower().replace(".inf", "inf").replace(".nan", "nan"), file, line)
    raise ConfigError(
        f"{shown(text)} has the type {tag.rsplit(':', 1)[-1]}, which an experiment file does not use",
        "quote it",
        file=file,
        line=line,
    )


def _finite(text: str, file: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(
            f"{shown(text)} is not a plain decimal number",
            "write digits and a point, or quote it",
            file=file,
            line=line,
        ) from None
    if not math.isfinite(value):
        raise ConfigError(
            f"numbers must be finite, but got {shown(text)}", "write a finite number", file=file, line=line
        )
    return value
