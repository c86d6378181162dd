"""Command-line options made from a frozen config: same names, same defaults, help from the docstring's Attributes.

Our choice; the paper has no counterpart. The dataclass is the only place where an option is written down.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from pudnet_lib.errors import PudNetError
from pudnet_lib.profiles import replace_fields


def with_options(
    config: type | Any, parameter: str = "config", known: Sequence[type] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a typer function one option a field of a config, in place of its config parameter.

    Fields of a nested config get their parent's name in front: ``episode.ways`` is ``--episode-ways``.

    Args:
        config: A frozen dataclass whose fields have defaults, or an instance that holds the defaults.
        parameter: The parameter of the function that receives the config.
        known: Further classes that the function's annotations name and its module does not.

    Returns:
        A decorator. The function is called with the config that the options describe, checked as ``configure`` does.
    """
    base = config() if isinstance(config, type) else config
    options = {name.replace(".", "_"): (name, option) for name, option in _options(base)}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        # The config's class is usually a local name of the command's build().
        names = {c.__name__: c for c in (type(base), *known)}
        hints = get_type_hints(function, localns=names, include_extras=True)
        own = inspect.signature(function).parameters.values()
        kept = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in own if p.name != parameter]
        clash = {p.name for p in kept} & set(options)
        if clash:
            raise TypeError(f"{function.__name__} and {type(base).__name__} both have {', '.join(sorted(clash))}.")

        @functools.wraps(function)
        def command(**given: Any) -> None:
            changes = {options[key][0]: _split(value) for key, value in given.items() if key in options}
            rest = {key: value for key, value in given.items() if key not in options}
            function(**rest, **{parameter: replace_fields(base, changes)})

        fields = [option.replace(name=key) for key, (_, option) in options.items()]
        signature = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*kept, *fields)])
        command.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        del command.__wrapped__  # or typer would read the hints of the original
        return command

    return decorate


def _options(config: Any, prefix: str = "") -> Iterator[tuple[str, inspect.Parameter]]:
    """Walk over the fields of a config, nested ones included: (dotted name, parameter for typer)."""
    hints, docs = get_type_hints(type(config)), attribute_docs(type(config))
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _options(value, f"{name}.")
            continue
        annotation, metavar = _typer_type(hints[field.name])
        default = [str(item) for item in value] if isinstance(value, tuple) else value
        flag = "--" + re.sub(r"[._]", "-", name)
        flags = [f"{flag}/--no-{flag[2:]}"] if annotation is bool else [flag]
        option = typer.Option(*flags, help=docs.get(field.name, ""), metavar=metavar, show_default=True)
        yield (
            name,
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
            ),
        )


def _typer_type(hint: Any) -> tuple[Any, str | None]:
    """Translate a field's type into one that typer reads, with a word for the help text."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return str, "|".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        if len(inner) == 1:
            annotation, metavar = _typer_type(inner[0])
            return annotation | None, metavar
    if origin is tuple:
        return list[str], ",".join(["…" if a is Ellipsis else getattr(a, "__name__", str(a)) for a in arguments])
    return hint, None


def parse_value(text: str) -> Any:
    """Read a parameter from the command line: a literal (``8``, ``0.1``, ``true``, ``[1, 2]``), else text."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def parse_grid(entries: Sequence[str]) -> dict[str, list[Any]]:
    """Read ``["width=8,16", "alpha=0,0.1"]``; a comma inside brackets does not separate.

    Raises:
        PudNetError: If an entry is not ``name=value[,value…]``, or a name comes twice.
    """
    grid: dict[str, list[Any]] = {}
    for entry in entries:
        name, sign, text = entry.partition("=")
        if not sign or not name.strip() or not text.strip() or name.strip() in grid:
            raise PudNetError(f"Grid entry {entry!r} is not name=value,value…, or names a parameter twice.")
        depth, parts = 0, [""]
        for letter in text:
            depth += (letter in "[(") - (letter in "])")
            if letter == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += letter
        grid[name.strip()] = [parse_value(part) for part in parts]
    return grid


def _split(value: Any) -> Any:
    """Split the texts of a tuple's option at commas: ``--seeds 0,1 --seeds 2`` is three seeds."""
    return [parse_value(part) for text in value for part in text.split(",")] if isinstance(value, list) else value


def attribute_docs(config: type) -> dict[str, str]:
    """Read the Attributes section of a Google-style docstring.

    Args:
        config: A class.

    Returns:
        Attribute → its description on one line.
    """
    section = re.search(r"^Attributes:\n(.*?)(?=^\S|\Z)", inspect.getdoc(config) or "", re.DOTALL | re.MULTILINE)
    found = re.findall(
        r"^    (\w+)(?: \([^)]*\))?: (.*?)(?=^    \w|\Z)", section[1] if section else "", re.DOTALL | re.M
    )
    return {name: " ".join(text.split()) for name, text in found}
