"""From YAML files and ``--set`` pairs to a ``Config``, or one sentence that names the mistake."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from headwater.config.settings import Config
from headwater.errors import UsageError


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader with two changes: a key repeated in one mapping is an error, because the first value would be lost, and
    an unquoted date stays text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} appears twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(files: list[Path] | None = None, overrides: list[str] | None = None) -> Config:
    """The configuration from defaults, then ``files`` in order, then ``overrides`` (``dotted.key=value``, with YAML values).

    Raises UsageError, with one sentence that names the file or key, for a missing or malformed file, an unknown key, a wrong
    type or an impossible value.
    """
    merged: dict[str, Any] = {}
    for file in files or []:
        merged = _merge(merged, _read(Path(file)))
    for pair in overrides or []:
        merged = _merge(merged, _parse(pair))
    try:
        return Config(**merged)
    except ValidationError as error:
        raise UsageError(_describe(error)) from None
    except TypeError as error:
        raise UsageError(f"config: {error}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except OSError as error:
        raise UsageError(f"config file {file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # a tag such as !!int is a ValueError
        raise UsageError(f"config file {file} is not YAML: {_yaml_problem(error)}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"config file {file} must hold a mapping of sections, not a {type(data).__name__}")
    return data


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {error.problem}" if mark else " ".join(str(error).split())  # type: ignore[attr-defined]


def _parse(pair: str) -> dict[str, Any]:
    key, separator, text = pair.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"--set {pair!r} must have the form dotted.key=value")
    try:
        value = yaml.load(text, _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError):
        raise UsageError(f"--set {key}: {text!r} is not a YAML value") from None
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return value


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        mapped = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if mapped else value
    return merged


def _keys(sections: dict[str, Any], prefix: str = "") -> list[str]:
    """All dotted keys of a configuration, of sections too."""
    below = (_keys(value, f"{prefix}{key}.") for key, value in sections.items() if isinstance(value, dict))
    return [*(prefix + key for key in sections), *chain.from_iterable(below)]


def _meant(loc: tuple[int | str, ...]) -> str | None:
    """The known key most like an unknown one: of the same section if any is, otherwise of all."""
    *above, name = map(str, loc)
    section = _section(Config, loc[:-1])
    if section and (close := get_close_matches(name, section.model_fields, n=1)):
        return ".".join([*above, *close])
    return next(iter(get_close_matches(".".join([*above, name]), _keys(Config().dump()), n=1)), None)


def _section(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The section at a place in a configuration, whose lists are numbered; None if there is none."""
    for part in loc:
        if isinstance(part, int):
            continue
        below = _models_in(model.model_fields[part].annotation) if part in model.model_fields else []
        if not below:
            return None
        model = below[0]
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _describe(error: ValidationError) -> str:
    lines = []
    problems = error.errors()
    for problem in problems:
        loc = problem["loc"]
        key = ".".join(map(str, loc)) or "config"
        got = f" (got {problem['input']!r:.80})" if loc else ""  # without a key it would be the whole config
        if problem["type"] == "extra_forbidden":
            meant = _meant(loc)
            lines.append(f"{key} is not a known config key" + (f"; did you mean {meant}?" if meant else ""))
        elif problem["type"] in ("model_type", "dict_type"):
            lines.append(f"{key} must hold keys with values{got}")
        elif problem["type"] == "tuple_type":
            lines.append(f"{key} must be a list{got}")
        elif problem["type"] == "too_short" and any(
            other["loc"][: len(loc)] == loc for other in problems if other != problem
        ):
            continue  # an entry that is wrong is not counted, which is no further mistake
        else:
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}{got}")
    return "; ".join(lines)
