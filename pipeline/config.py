"""The experiment file: YAML to one frozen `ExperimentConfig`, every mistake named with its line and a remedy."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.data.checks.policy import ChecksConfig
from pipeline.data.config import DataConfig
from pipeline.errors import ConfigError
from pipeline.objective import COSTS, METRICS
from pipeline.redaction import redacted
from pipeline.text import MAX_SHOWN, shortened, shown
from pipeline.yaml_source import Source, parse_yaml

VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")

MIN_INTERVAL_S = 1.0
"""Of a schedule."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def _seconds(value: object) -> object:
    """``90``, ``"90s"``, ``"10m"``, ``"1.5h"`` as seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"a duration must be a number with s, m, h or d, but got {value!r}")
    return float(match[1]) * _UNITS[match[2]]


def _duration_text(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:g}s"


Duration = Annotated[
    Annotated[float, Field(gt=0, le=366 * 86_400)],
    BeforeValidator(_seconds),
    PlainSerializer(_duration_text, return_type=str),
]


def is_name(text: str) -> bool:
    """Whether an experiment, a model or an alias may be called so."""
    return NAME.fullmatch(text) is not None and text != "latest"


def _name(value: object) -> object:
    if isinstance(value, str) and not is_name(value):
        raise ValueError(f"a name must match {NAME.pattern} and not be `latest`, but got {shown(value)}")
    return value


Name = Annotated[str, BeforeValidator(_name)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """pydantic takes true for 1; a file that says ``trials: true`` is a mistake."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"a value that is not true or false is needed, but got {str(value).lower()}")
        return value


class Budget(_Section):
    """Totals of a search over all its starts; the first one reached ends it."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = 100
    time: Duration | None = None
    per_trial: Duration | None = None
    """After this long a trial's worker process is killed and the trial fails."""
    failures: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """So many failed trials end the search. null: five and nothing else, or twenty and more than half of all."""

    @model_validator(mode="after")
    def _bounded(self) -> Budget:
        if self.trials is None and self.time is None:
            raise ValueError("a budget must have trials or time, but both are null")
        return self


class SearchConfig(_Section):
    """What is searched, how, and for how long."""

    families: Literal["auto"] | tuple[str, ...] = "auto"
    metric: str = "auto"
    space: dict[str, Any] = Field(default_factory=dict)
    sampler: Literal["tpe", "gp", "qmc", "random"] = "tpe"
    pruner: Literal["hyperband", "asha", "median", "none"] = "hyperband"
    warm_start: tuple[Literal["defaults", "previous"], ...] = ("defaults", "previous")
    """defaults: every family's strong default first. previous: then the best of this experiment's last search."""
    budget: Budget = Budget()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _known(self) -> SearchConfig:
        if self.metric != "auto" and self.metric not in METRICS:
            raise ValueError(f"metric must be auto or one of {', '.join(METRICS)}, but got {self.metric!r}")
        if self.families != "auto" and (not self.families or len(set(self.families)) != len(self.families)):
            raise ValueError(f"families must be auto or a list of different names, but got {list(self.families)}")
        return self


class TrainConfig(_Section):
    """What all trials share."""

    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    patience: Annotated[int, Field(ge=1, le=100_000)] = 10
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    deterministic: bool = False


class ResourcesConfig(_Section):
    """Where trials train."""

    devices: Literal["auto", "cpu", "cuda"] | tuple[str, ...] = "auto"
    slots_per_device: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    cohort: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """Most trials that train as one computation; auto measures what pays."""
    min_free_disk_gb: Annotated[float, Field(ge=0, le=1_000_000)] = 0.5
    """Free GiB on the state folder's disk under which the search pauses."""


class EvaluateConfig(_Section):
    """The one reading of the sealed test."""

    finalists: Annotated[int, Field(ge=1, le=50)] = 3
    """Best trials that are read on the sealed test, next to the best of each family."""
    seeds: Literal["auto"] | Annotated[int, Field(ge=1, le=100)] = "auto"
    """How often a finalist is trained, its trial included; the winner is chosen by the mean over its seeds, and beats
    the champion by more than luck in training goes. auto: three times where that adds at most a quarter to the
    epochs of the search, or a minute of training (which does not count where `train.deterministic` asks for a search
    that repeats); else once."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Resamples behind every interval."""
    calibrate: bool = True
    """Fit a temperature to each finalist of a classification on the validation part; not under cross-validation, whose
    rows were all trained on."""
    explain: bool = True
    """Say what the winner uses: importance of a table's columns, or where it looks in images and sequences."""
    conformal: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of new rows whose truth predictions are to hold: an interval (``lower``, ``upper``) or a ``set`` of labels
    a row, fitted on the validation part. That part has chosen epoch and trial, so a little less is held; how much is
    measured on the sealed test. Not under cross-validation."""


class TrackingConfig(_Section):
    """Where runs are recorded."""

    uri: str = "sqlite:///mlruns/mlflow.db"
    models: Literal["all", "best"] | Annotated[str, Field(pattern=r"^top-[1-9]\d{0,3}$")] = "all"
    """all: every completed trial's model. top-N: those among the N best when they finish. best: finalists only."""
    plots: bool = True
    """Draw Optuna's interactive plots when a search ends: a page of 5 MB, two seconds."""


class Gate(_Section):
    """One condition for a promotion: a floor or ceiling on a sealed-test metric or a cost of the winner, or a win over
    the champion. ``{latency_ms_p95: 10}`` is short for ``{metric: latency_ms_p95, max: 10}``."""

    metric: str | None = None
    min: float | None = None
    max: float | None = None
    slice: str | None = None
    """A column, or the target: the metric is bounded on the rows of each of its levels or bins, not on all at once."""
    beats: Literal["champion"] | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """The two-sided interval of the paired bootstrap's difference on the same sealed rows must lie above 0, over the
    winner's seeds where it was trained with several."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) == 1 and (name := next(iter(value))) in COSTS:
            return {"metric": name, "max": value[name]}
        return value

    @model_validator(mode="after")
    def _one_condition(self) -> Gate:
        if (self.metric is None) == (self.beats is None):
            raise ValueError("a gate must have either `metric` with min or max, or `beats: champion`")
        if self.slice is not None and self.metric not in METRICS:
            raise ValueError(f"a gate on the slices of {shown(self.slice)} must have one of {', '.join(METRICS)}")
        if self.metric is not None:
            if self.metric not in METRICS and self.metric not in COSTS:
                known = ", ".join((*METRICS, *COSTS))
                raise ValueError(f"a gate's metric must be one of {known}, but got {self.metric!r}")
            if self.min is None and self.max is None:
                raise ValueError(f"a gate on {self.metric} must have min or max")
        return self


class PromotionConfig(_Section):
    """When a model becomes the champion."""

    model: Name | None = None
    """The registered model's name; the experiment's where it is null."""
    gates: tuple[Gate, ...] = (Gate(beats="champion"),)
    mode: Literal["auto", "approve", "never"] = "auto"
    """auto: a winner that passes the gates becomes the champion. approve: it is registered and waits for ``automl
    promote``. never: nothing is registered but by ``automl promote``."""


class ScheduleConfig(_Section):
    """When ``automl schedule`` has the experiment run. Whether a cron ever fires is looked at there."""

    cron: str | None = None
    """Five fields: minute, hour, day of month, month, day of week."""
    interval: Duration | None = None
    """Time between two starts."""
    timezone: str = "UTC"
    """Of the cron's clock, an IANA name."""

    @model_validator(mode="after")
    def _known(self) -> ScheduleConfig:
        if self.cron is not None and self.interval is not None:
            raise ValueError("a schedule must have either cron or interval, but both are given")
        if self.interval is not None and self.interval < MIN_INTERVAL_S:
            raise ValueError(f"an interval must be >= {MIN_INTERVAL_S:g}s, but got {self.interval:g}s")
        known = available_timezones()
        if self.timezone not in known:
            close = difflib.get_close_matches(self.timezone, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ", as Europe/Berlin"
            raise ValueError(f"timezone must be an IANA name{hint}, but got {self.timezone!r}")
        return self


class NotifyConfig(_Section):
    """Who is told in one line what a scheduled run ended with, and of every move of the champion by ``automl run``,
    ``promote`` or ``rollback FILE``. Telling never makes a run fail, and never undoes a promotion."""

    command: tuple[str, ...] = ()
    """Program and arguments. It gets the line on its standard input, and the event and the experiment in
    ``AUTOML_EVENT`` and ``AUTOML_EXPERIMENT``; of a move also ``AUTOML_MODEL``, ``AUTOML_VERSION``,
    ``AUTOML_PREVIOUS``, ``AUTOML_WHO`` and ``AUTOML_ACTION``."""
    webhook: str | None = None
    """URL that gets a POST of ``{"event": …, "experiment": …, "text": line}``, of a move with model, version, previous,
    who, action and evidence. ``${NAME}`` in it is the environment variable of that name when the line is sent."""
    on: tuple[Literal["finished", "promoted", "rolled_back", "failed", "skipped", "interrupted"], ...] = (
        "finished",
        "promoted",
        "rolled_back",
        "failed",
    )
    """finished: a search went to its end. promoted: there is a new champion. rolled_back: the old one is back."""
    timeout: Duration = 10.0

    @model_validator(mode="after")
    def _http(self) -> NotifyConfig:
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://", "${")):
            raise ValueError("webhook must be an http or https URL")  # not repeated: such URLs are secrets
        return self


class ExperimentConfig(_Section):
    """One experiment, as its file says. `with_overrides` and `load_experiment` are the ways to make one."""

    name: Name
    data: DataConfig
    checks: ChecksConfig = ChecksConfig()
    search: SearchConfig = SearchConfig()
    train: TrainConfig = TrainConfig()
    resources: ResourcesConfig = ResourcesConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    tracking: TrackingConfig = TrackingConfig()
    promotion: PromotionConfig = PromotionConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    notify: NotifyConfig = NotifyConfig()

    @property
    def registered_model(self) -> str:
        return self.promotion.model or self.name

    def to_yaml(self) -> str:
        """The resolved file: every field, defaults included. It is kept with every search and run: secrets are masked,
        and `notify` is left out, since a webhook's address is one."""
        settings = self.model_dump(mode="json", exclude={"notify"})
        return yaml.safe_dump(_redacted(settings), sort_keys=False, allow_unicode=True)


def _redacted(value: Any) -> Any:
    """Every text in a tree with its secrets masked."""
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    return redacted(value) if isinstance(value, str) else value


def load_experiment(path: Path, overrides: tuple[str, ...] = ()) -> ExperimentConfig:
    """Read an experiment file and apply ``a.b=c`` overrides.

    Raises:
        ConfigError: the file or an override breaks a rule: one line with file, line, rule and remedy.
    """
    source = parse_yaml(path)
    for override in overrides:
        source.override(override)
    _expand_variables(source)
    try:
        return ExperimentConfig.model_validate(source.value)
    except ValidationError as error:
        raise _one_line(error, source) from None


def _expand_variables(source: Source) -> None:
    """``${NAME}`` in the data's paths is the environment variable of that name; nowhere else, so that no secret of the
    environment can end up in a run."""
    data = source.value.get("data")
    if not isinstance(data, dict):
        return
    for key in ("source", "test"):
        text = data.get(key)
        if not isinstance(text, str):
            continue
        for name in VARIABLE.findall(text):
            if name not in os.environ:
                file, line = source.where(source.longest_known(("data", key)))
                raise ConfigError(
                    f"`data.{key}` uses the environment variable {name}, which is not set",
                    f"export {name}=…, or use --set data.{key}=…",
                    file=file,
                    line=line,
                )
        data[key] = VARIABLE.sub(lambda match: os.environ[match[1]], text)


def _one_line(error: ValidationError, source: Source) -> ConfigError:
    """The first mistake of a validation as one line. Unknown keys come first: they explain what is missing."""
    mistakes = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    first = mistakes[0]
    path = tuple(part for part in first["loc"] if not _is_union_branch(part))
    if first["type"] == "extra_forbidden" and path[-1:] != first["loc"][-1:]:
        path = (*path, first["loc"][-1])  # a key of the user's that looks like a branch of ours
    # A union reports every branch it tried; the deepest real key is what the user wrote.
    keys = source.longest_known(path)
    name = shortened(".".join(str(part) for part in path), MAX_SHOWN) or "the file"
    file, line = source.where(keys)
    if first["type"] == "extra_forbidden":
        known = _fields_at(path[:-1])
        close = difflib.get_close_matches(str(path[-1])[:MAX_SHOWN], known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known keys here: {', '.join(known)}"
        return ConfigError(f"unknown key `{name}`", hint, file=file, line=line)
    if first["type"] == "missing":
        return ConfigError(f"`{name}` is required", "add it to the file", file=file, line=line)
    what = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict | list) or "but got" in what else f", but got {shown(first['input'])}"
    what = what[0].lower() + what[1:]
    return ConfigError(f"`{name}`: {what}{given}", file=file, line=line)


def _is_union_branch(part: int | str) -> bool:
    return isinstance(part, str) and (
        part.startswith(("literal[", "function-", "constrained-"))
        or part in {"int", "float", "str", "bool", "tuple[str, ...]"}
        or "[" in part
    )


def _fields_at(path: tuple[int | str, ...]) -> list[str]:
    """Field names of the section that `path` leads to."""
    model: Any = ExperimentConfig
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        annotation = field.annotation
        arguments = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        model = (
            annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel)
            else (arguments[0] if arguments else None)
        )
        if model is None:
            return []
    return list(model.model_fields)
