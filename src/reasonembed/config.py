"""Configuration: TOML to frozen Structs. Unknown keys are refused with the nearest known one; flags override."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reasonembed.errors import ConfigError, InputError, nearest
from reasonembed.files import open_binary

Config = TypeVar("Config")

_MAX_BYTES = 1 << 20  # our choice: the longest domain file has 2 KB
_MAX_PARTS = 32  # our choice: `tomllib` takes memory that grows with the square of a key's parts
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"""(?<![\w"'.-])(?:{_PART}\.[ \t]*+){{{_MAX_PARTS - 1}}}""")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")
_AT = re.compile(r"^(.*) - at `\$\.?([^`]*)`$")


def load_toml(path: Path, kind: type[Config]) -> Config:
    """The file as a `kind` (a msgspec Struct with `forbid_unknown_fields`).

    Raises InputError if it is no readable TOML, ConfigError naming file, line and key for a mistake in it.
    """
    text, values = _read_toml(path)
    return build(kind, values, where=str(path), text=text)


def overlay_toml(path: Path, config: Config) -> Config:
    """`config` with the keys of the file replaced, table by table, checked again. Raises as `load_toml`."""
    text, values = _read_toml(path)
    return build(type(config), _merged(msgspec.to_builtins(config), values), where=str(path), text=text)


def _read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    with open_binary(path) as handle:
        raw = handle.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8 (byte {error.start}). Save the file as UTF-8.") from error
    if len(raw) > _MAX_BYTES or _LONG_KEY.search(text):
        raise InputError(
            f"{path} is no configuration: it is larger than {_MAX_BYTES >> 20} MiB, or a key of it has {_MAX_PARTS} "
            f"parts or more with dots between them. Give the file that is meant."
        )
    try:
        return text, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}. Mend that line.") from error


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _merged(below.get(key), value) for key, value in above.items()}


def build(kind: type[Config], values: Mapping[str, Any], *, where: str, text: str = "") -> Config:
    """`values` checked and converted to `kind`; `where` names their origin, `text` (TOML) allows line numbers."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(kind, str(error), where, text)) from error
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def override(config: Config, changes: Mapping[str, Any], *, where: str = "flags") -> Config:
    """`config` with the dotted keys of `changes` replaced (`None` values are left alone), checked again."""
    values = msgspec.to_builtins(config)
    for dotted, value in changes.items():
        if value is None:
            continue
        *parents, last = dotted.split(".")
        table = values
        for parent in parents:
            table = table[parent]
        table[last] = value
    return build(type(config), values, where=where)


def _explain(kind: type, message: str, where: str, text: str) -> str:
    if match := _UNKNOWN.match(message):
        key, inside = match.group(1), match.group(2) or ""
        known = _keys(kind, inside)
        place = f"{where}{_line_of(key, text)}"
        table = f" in [{inside}]" if inside else ""
        return f'{place}: unknown key "{key}"{table}{nearest(key, known) or "."} Known keys: {", ".join(known)}.'
    if match := _AT.match(message):
        found, key = match.group(1), match.group(2)
        return f'{where}{_line_of(key.rsplit(".", 1)[-1], text)}: "{key}": {found}.'
    return f"{where}: {message}."


def _keys(kind: type, inside: str) -> list[str]:
    struct: Any = kind
    for part in filter(None, inside.split(".")):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
        struct = fields.get(part.split("[")[0], struct)
    return [field.encode_name for field in msgspec.structs.fields(struct)]


def _line_of(key: str, text: str) -> str:
    pattern = re.compile(rf'^\s*(?:\[.*)?["\']?{re.escape(key)}["\']?\s*(?:[=\]])')
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return f", line {number}"
    return ""
