"""Profiles: how much of an experiment is run, from a smoke test to the paper's scale.

Our choice. A notebook shows what each means in a cell, as a table of three rows for ``pick``; its parameters name one.
"""

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pudnet_lib.errors import PudNetError, unknown_name

#: smoke: CI, at most 40 s a notebook on 2 cores; laptop: minutes, embedded data; paper: a GPU, the paper's data.
PROFILE_NAMES = ("smoke", "laptop", "paper")
PROFILE_VARIABLE = "PUDNET_PROFILE"

Config = TypeVar("Config")


def current_profile() -> str:
    """Read the profile from the environment variable ``PUDNET_PROFILE``; ``laptop`` where it is not set."""
    profile = os.environ.get(PROFILE_VARIABLE) or "laptop"
    return known_profile(profile, f"It comes from the environment variable {PROFILE_VARIABLE}.")


def known_profile(profile: str, *hint: str) -> str:
    """Pass a profile's name on; an unknown one is an error."""
    if profile not in PROFILE_NAMES:
        raise unknown_name("profile", profile, PROFILE_NAMES, *hint)
    return profile


def pick(profile: str, **sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the sizes of one profile from a notebook's table of one row a profile.

    Args:
        profile: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        **sizes: One mapping a profile; all have the same names, and values of the same kind.
    """
    if set(sizes) != set(PROFILE_NAMES):
        raise PudNetError(f"pick() got the profiles {sorted(sizes)}; expected {', '.join(PROFILE_NAMES)}.")
    names = set(sizes[known_profile(profile)])
    for other, values in sizes.items():
        if set(values) != names:
            raise PudNetError(f"The sizes of {other} and {profile} differ in {sorted(set(values) ^ names)}.")
    return dict(sizes[profile])


def replace_fields(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Copy a frozen dataclass with some fields replaced, by dotted name; each name and type checked, None left out."""
    hints = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    nested: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in overrides.items():
        head, _, rest = name.partition(".")
        if head not in hints:
            raise unknown_name(f"parameter of {type(config).__name__}", head, hints)
        if value is not None and rest:
            nested[head][rest] = value
        elif value is not None:
            changes[head] = checked(f"{type(config).__name__}.{head}", value, hints[head])
    for head, fields in nested.items():
        changes[head] = replace_fields(getattr(config, head), fields)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def checked(name: str, value: Any, hint: Any) -> Any:
    """Check a JSON-like value against a type, strictly: ``"8"`` and ``True`` are no int, ``8`` is a float."""
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        plain = isinstance(hint, type) and not getattr(hint, "__args__", ())
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        what = f"Parameter {name} is {value!r} ({type(value).__name__}); expected {hint.__name__ if plain else hint}"
        raise PudNetError(f"{what} ({reason.removeprefix('Input should be ')}).") from None
