"""The YAML of configs, without the surprises of YAML 1.1.

YAML 1.1, which PyYAML implements, reads 0010 as 8, yes as a boolean, 2024-01-01 as a date, and 1e-3 as text. Here a
number is a number of both JSON and Python and keeps its text, for options that are names; keys are text. Dumped text is
quoted where YAML 1.1 or this module would read something else.
"""

import re
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, ClassVar

import yaml

from ser.settings.class_paths import public_path

TAG = "tag:yaml.org,2002:"
SCALARS = {
    "null": (r"null|", ["n", ""]),
    "bool": (r"true|false", "tf"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(?:0|[1-9][0-9]*)(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class _Int(int):
    text: str

    def __repr__(self) -> str:
        return self.text


class _Float(float):
    text: str

    def __repr__(self) -> str:
        return self.text


# jsonargparse puts lists and mappings into its own command lines: they must be YAML, not Python.
class _List(list[Any]):
    def __repr__(self) -> str:
        return flow(self)


class _Dict(dict[str, Any]):
    __slots__ = ()  # without a __dict__, in which jsonargparse would look for the items

    def __repr__(self) -> str:
        return flow(self)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.checked: list[yaml.Node] = []

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if node not in self.checked:  # a merged mapping is flattened again, with the merged keys
            self.checked.append(node)
            self.check_unique(node)
        super().flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = f"{TAG}str"

    def check_unique(self, node: yaml.MappingNode) -> None:
        """Check that no key is given twice; YAML would take the last."""
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.MarkedYAMLError(problem=f"line {line} repeats {key.value!r} of line {lines[key.value]}")
            lines[key.value] = line

    def number(self, node: yaml.ScalarNode) -> _Int | _Float:
        kind = node.tag.removeprefix(TAG)
        number: Any = _Int(self.construct_yaml_int(node)) if kind == "int" else _Float(self.construct_yaml_float(node))
        number.text = node.value
        return number  # type: ignore[no-any-return]

    def sequence(self, node: yaml.SequenceNode) -> Iterator[_List]:
        items = _List()
        yield items
        items.extend(self.construct_sequence(node))

    def mapping(self, node: yaml.MappingNode) -> Iterator[_Dict]:
        items = _Dict()
        yield items
        items.update(self.construct_mapping(node))
        if isinstance(path := items.get("class_path"), str) and path.startswith("ser."):
            items["class_path"] = public_path(path)  # configs of any age


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def number(self, value: Any) -> yaml.ScalarNode:
        return self.represent_scalar(f"{TAG}{'int' if isinstance(value, _Int) else 'float'}", value.text)


_Loader.add_implicit_resolver(f"{TAG}merge", re.compile("^<<$"), ["<"])
for _kind, (_pattern, _first) in SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{TAG}{_kind}", re.compile(f"^(?:{_pattern})$"), [*_first])
for _kind, _construct in {
    "int": _Loader.number,
    "float": _Loader.number,
    "seq": _Loader.sequence,
    "map": _Loader.mapping,
}.items():
    _Loader.add_constructor(f"{TAG}{_kind}", _construct)
_Dumper.add_representer(_Int, _Dumper.number)
_Dumper.add_representer(_Float, _Dumper.number)
_Dumper.add_representer(_List, _Dumper.represent_list)
_Dumper.add_representer(_Dict, _Dumper.represent_dict)


def load(text: str) -> Any:
    """Read YAML; numbers, lists and mappings keep their text, and :func:`plain` converts them to Python's.

    Raises:
        yaml.YAMLError: The text is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


def dump(value: Any) -> str:
    """Write plain data."""
    return str(yaml.dump(plain(value), Dumper=_Dumper, allow_unicode=True, sort_keys=False))


def flow(value: Any) -> str:
    """Write plain data in one line, numbers with their own text."""
    style: dict[str, Any] = {"default_flow_style": True, "width": float("inf")}
    try:
        return str(yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, **style)).strip()
    except yaml.YAMLError:  # it holds objects of a parser
        return str(plain(value))


def plain(value: Any) -> Any:
    """Return data of :func:`load`, or a parser's namespace of it, with Python's own numbers, lists and dicts."""
    if isinstance(value, Namespace):
        vars(value).update({name: plain(item) for name, item in vars(value).items()})
    elif type(value) in (dict, _Dict):
        return {key: plain(item) for key, item in value.items()}
    elif type(value) in (list, tuple, _List):
        return (tuple if type(value) is tuple else list)(map(plain, value))
    elif isinstance(value, _Int):
        return int(value)
    elif isinstance(value, _Float):
        return float(value)
    return value
