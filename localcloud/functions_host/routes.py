"""ASP.NET route templates, as the `route` of an HTTP trigger is written: `release/{id:int}/{*rest}`.

Known: literals, parameters, several parameters in a segment, catch-all parameters, optional parameters and defaults at
the end, and the constraints in `_CONSTRAINTS`. Letters match in any case; a trailing slash does not matter.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from localcloud.functions_host.errors import AppError

_PARAMETER = re.compile(r"\{(\*{0,2})([A-Za-z_]\w*)((?::[a-z]+(?:\([^()]*\))?)*)(\?|=[^{}]*)?\}")
_CONSTRAINT = re.compile(r":([a-z]+)(?:\(([^()]*)\))?")

type Check = Callable[[str], bool]


def _parses(convert: Callable[[str], object]) -> Check:
    def check(text: str) -> bool:
        try:
            convert(text)
        except ValueError:
            return False
        return True

    return check


def _integer(bits: int) -> Check:
    limit = 1 << (bits - 1)
    return lambda text: re.fullmatch(r"[+-]?\d+", text) is not None and -limit <= int(text) < limit


def _bound(allowed: Callable[[int], bool]) -> Check:
    return lambda text: _integer(64)(text) and allowed(int(text))


_CONSTRAINTS: Mapping[str, Callable[..., Check]] = {
    "int": lambda: _integer(32),
    "long": lambda: _integer(64),
    "bool": lambda: lambda text: text.lower() in ("true", "false"),
    "alpha": lambda: lambda text: re.fullmatch(r"[A-Za-z]*", text) is not None,
    "guid": lambda: _parses(uuid.UUID),
    "decimal": lambda: _parses(float),
    "double": lambda: _parses(float),
    "float": lambda: _parses(float),
    "min": lambda low: _bound(lambda number: number >= low),
    "max": lambda high: _bound(lambda number: number <= high),
    "range": lambda low, high: _bound(lambda number: low <= number <= high),
    "length": lambda low, high=None: lambda text: low <= len(text) <= (low if high is None else high),
    "minlength": lambda low: lambda text: len(text) >= low,
    "maxlength": lambda high: lambda text: len(text) <= high,
}


@dataclass(frozen=True)
class Route:
    """A parsed template; `precedence` sorts the more special before the more general."""

    template: str
    pattern: re.Pattern[str]
    checks: Mapping[str, tuple[Check, ...]]
    defaults: Mapping[str, str]
    precedence: tuple[int, ...]

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parameters if this path (decoded) is one of the route's, else None."""
        match = self.pattern.fullmatch(path.strip("/"))
        if match is None:
            return None
        values = {**self.defaults, **{name: value for name, value in match.groupdict().items() if value is not None}}
        fits = all(check(values[name]) for name, checks in self.checks.items() if name in values for check in checks)
        return values if fits else None


def parse_route(template: str, where: str) -> Route:
    """Parse a template. Raises AppError, with `where` in it, for one that is not understood."""
    pattern, precedence = "", []
    checks: dict[str, tuple[Check, ...]] = {}
    defaults: dict[str, str] = {}
    segments = template.strip("/").split("/") if template.strip("/") else []
    for index, segment in enumerate(segments):
        part, rest, may_miss, is_constrained, is_catch_all = "", segment, False, False, False
        parameters = list(_PARAMETER.finditer(segment))
        literal = _PARAMETER.sub("", segment)
        if "{" in literal or "}" in literal:
            raise AppError(f"{where}: cannot read the route segment {segment!r} of {template!r}")
        for found in parameters:
            stars, name, constraints, ending = found.groups()
            if name in checks:
                raise AppError(f"{where}: the route {template!r} names {{{name}}} twice")
            if (stars or ending) and (index < len(segments) - 1 or literal or len(parameters) > 1):
                raise AppError(f"{where}: {found[0]} must be the whole last segment of the route {template!r}")
            checks[name] = tuple(
                _constraint(kind, arguments, where, template) for kind, arguments in _CONSTRAINT.findall(constraints)
            )
            is_constrained |= bool(constraints)
            is_catch_all = bool(stars)
            may_miss = bool(ending) or is_catch_all
            if ending and ending != "?":
                defaults[name] = ending[1:]
            before, _, rest = rest.partition(found[0])
            part += re.escape(before) + (f"(?P<{name}>.+)" if is_catch_all else f"(?P<{name}>[^/]+?)")
        part += re.escape(rest)
        slash = "/" if index else ""
        pattern += f"(?:{slash}{part})?" if may_miss else slash + part
        precedence.append(_rank(bool(parameters), bool(literal), is_constrained, is_catch_all))
    return Route(template, re.compile(pattern, re.IGNORECASE), checks, defaults, tuple(precedence))


def _rank(has_parameter: bool, has_literal: bool, is_constrained: bool, is_catch_all: bool) -> int:  # noqa: FBT001
    if not has_parameter:
        return 1
    if is_catch_all:
        return 4 if is_constrained else 5
    return 2 if is_constrained or has_literal else 3


def _constraint(name: str, arguments: str, where: str, template: str) -> Check:
    if name not in _CONSTRAINTS:
        raise AppError(
            f"{where}: the local Functions host does not know the constraint {name!r} of the route {template!r}; "
            f"it knows {', '.join(_CONSTRAINTS)}"
        )
    try:
        return _CONSTRAINTS[name](*(int(one) for one in arguments.split(",") if arguments))
    except (TypeError, ValueError) as error:
        raise AppError(f"{where}: {name}({arguments}) in the route {template!r} has wrong arguments") from error
