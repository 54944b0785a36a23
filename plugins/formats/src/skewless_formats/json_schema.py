"""JSON Schema: reads JSON events that are valid by the schema of their writer.

The values of an event are those that the core reads from JSON: a schema says what is valid and changes nothing, so its
``default``, ``format`` and encodings are notes. Each ``$ref`` is replaced by what it names before the schema is
compiled, so that the work for an event has a bound, and nothing is ever fetched. Without ``$schema``, a schema is of
draft 7, as in Confluent's registry. https://json-schema.org/specification
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urljoin

from skewless.contract.columns import Column
from skewless.infra.platform.formats.codec import PayloadError
from skewless.infra.platform.formats.json_event import load_event
from skewless_formats.avro import ReadBody, Values, parse_json
from skewless_formats.packages import import_format
from skewless_formats.registry import RegisteredSchema

_Json: TypeAlias = Any
_Compile: TypeAlias = Callable[..., _Json]
_MOST_PARTS, _MOST_DEPTH, _MOST_PATTERNS, _PATTERN_BYTES = 10_000, 64, 100, 50_000
_MOST_UNEVALUATED = 3  # inside each other for one value, of which each may double the work
_DRAFTS = {
    "draft-04": "Draft4Validator",
    "draft-06": "Draft6Validator",
    "draft-07": "Draft7Validator",
    "draft/2019-09": "Draft201909Validator",
    "draft/2020-12": "Draft202012Validator",
}
_DRAFT = re.compile(r"https?://json-schema\.org/(.{8,13})/schema#?")
_Role = Literal["schema", "names", "data"]
# What the values of a keyword are, if not schemas: schemas by name, or JSON that is not a schema.
_ROLES: dict[str, _Role] = {
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas", "dependencies"), "names"),
    **dict.fromkeys(("enum", "const", "default", "examples"), "data"),
}
# Once no $ref is left, nothing uses these; the last ones are notes, which some drafts may check.
_OMITTED = frozenset(
    {"$ref", "$schema", "$id", "$anchor", "$defs", "definitions", "contentEncoding", "contentMediaType"}
)
_DYNAMIC = ("$dynamicRef", "$recursiveRef")
_UNEVALUATED = frozenset({"unevaluatedItems", "unevaluatedProperties"})
_PARTS = frozenset({"properties", "patternProperties", "additionalProperties", "items", "prefixItems"})
_BRANCHES = ("anyOf", "oneOf", "allOf")


def compile_json(registered: RegisteredSchema) -> ReadBody:
    """Return a function from the JSON of an event to its fields.

    Raises:
        PayloadError: the schema is not valid, or the work that it makes has no bound.
        DefinitionError: jsonschema-rs is not installed.
    """
    name = f"schema {registered.id}"
    schema = _Expansion(name, registered)
    compile_schema = _choose_compiler(name, schema.draft)
    is_valid = compile_schema(schema.expanded).is_valid

    @cache
    def open_explainer() -> _Json:
        branch = partial(_AnyBranch, compile_schema)
        return compile_schema(schema.expanded, {"anyOf": branch, "oneOf": branch})

    def read_body(body: bytes) -> Values:
        event = load_event(body)
        try:
            if is_valid(event):
                return event
        except UnicodeEncodeError:
            raise PayloadError("the message has text that is not Unicode") from None
        raise PayloadError(f"the message does not match {_find_rule(open_explainer(), event)}{name}")

    return read_body


def check_properties(registered: RegisteredSchema, columns: Sequence[Column]) -> None:
    """Check that a schema declares all columns; raise PayloadError."""
    name = f"schema {registered.id}"
    schemas = list(_find_alternatives(_Expansion(name, registered).expanded))
    declared = {key for schema in schemas for key in schema.get("properties", ())}
    is_map = any(isinstance(schema.get("additionalProperties"), dict) for schema in schemas)
    is_map = is_map or any("patternProperties" in schema for schema in schemas)
    for column in columns:
        if column.name not in declared and not is_map:
            raise PayloadError(f"{name} lacks the property {column.name!r}")


class _Expansion:
    """A schema without ``$ref``: each is replaced by what it names, in the schema itself or in one that it references.

    Attributes:
        expanded: the schema.
        draft: of JSON Schema.
    """

    def __init__(self, name: str, registered: RegisteredSchema) -> None:
        self._name = name
        self._documents = {key: parse_json(name, text) for key, text in registered.references}
        self._root = parse_json(name, registered.text)
        self._n_parts = self._n_patterns = 0
        given = self._root.get("$schema", "") if isinstance(self._root, dict) else ""
        match = _DRAFT.fullmatch(given) if isinstance(given, str) else None
        self.draft = match[1] if match else "draft-07"
        if self.draft not in _DRAFTS or (given and not match):
            raise PayloadError(f"{name} is of an unknown draft of JSON Schema")
        self.expanded = self._expand(self._root, self._root)

    def _expand(
        self,
        node: _Json,
        document: _Json,
        role: _Role = "schema",
        depth: int = 0,
        active: tuple[Any, ...] = (),
    ) -> _Json:
        """Return a part of a document without ``$ref``; ``active``: the schemas and rules that it is in."""
        self._n_parts += 1
        if self._n_parts > _MOST_PARTS or self._n_patterns > _MOST_PATTERNS:
            raise PayloadError(f"{self._name} has more than {_MOST_PARTS} parts or {_MOST_PATTERNS} patterns")
        if depth > _MOST_DEPTH:
            raise PayloadError(f"{self._name} is nested too deeply")
        if isinstance(node, list):
            return [self._expand(item, document, role, depth + 1, active) for item in node]
        if not isinstance(node, dict):
            return node
        if role != "schema":
            inner: _Role = "data" if role == "data" else "schema"
            return {key: self._expand(value, document, inner, depth + 1, active) for key, value in node.items()}
        active = (*active, *self._check_keywords(node, document, active))
        of_parts = tuple(each for each in active if isinstance(each, dict))
        rest = {
            key: self._expand(
                value, document, _ROLES.get(key, "schema"), depth + 1, of_parts if key in _PARTS else active
            )
            for key, value in node.items()
            if key not in _OMITTED
        }
        if not isinstance(node.get("$ref"), str):
            return rest
        target = self._resolve(node["$ref"], document, depth, active)
        if "/" not in self.draft or not rest:  # until draft 7, what is beside a $ref does not count
            return target
        branches = rest.get("allOf", [])
        return {**rest, "allOf": [*(branches if isinstance(branches, list) else [branches]), target]}

    def _check_keywords(self, node: dict[str, Any], document: _Json, active: Collection[Any]) -> list[str]:
        """Raise PayloadError for what has no bound or is not supported; return the keywords that may double work."""
        inner = node.get("$id", "")
        is_document = node is document or any(node is each for each in self._documents.values())
        if not is_document and isinstance(inner, str) and not inner.startswith("#") and inner:
            raise PayloadError(f"{self._name} has an $id inside, which is not supported")
        for keyword in _DYNAMIC:
            if keyword in node:
                raise PayloadError(f"{self._name} has a {keyword}, which is not supported")
        patterns = node.get("patternProperties")
        self._n_patterns += ("pattern" in node) + (len(patterns) if isinstance(patterns, dict) else 0)
        found = sorted(_UNEVALUATED & node.keys())
        if found and sum(each in _UNEVALUATED for each in active if isinstance(each, str)) >= _MOST_UNEVALUATED:
            raise PayloadError(f"{self._name} has more than {_MOST_UNEVALUATED} times {found[0]} inside each other")
        return found

    def _resolve(self, reference: str, document: _Json, depth: int, active: tuple[Any, ...]) -> _Json:
        """Return what a ``$ref`` names, without ``$ref``."""
        uri, _, fragment = reference.partition("#")
        own = document.get("$id", document.get("id")) if isinstance(document, dict) else None
        own = own.removesuffix("#") if isinstance(own, str) else ""
        target: _Json = None
        with suppress(KeyError, IndexError, ValueError, TypeError):  # it leads nowhere
            if uri not in {"", own}:
                document = self._documents[uri if uri in self._documents else urljoin(own, uri)]
            first, *words = unquote(fragment).split("/")
            place: _Json = None if first else document  # a name without "/" is an anchor
            for word in words:
                key = word.replace("~1", "/").replace("~0", "~")
                place = place[int(key)] if isinstance(place, list) else place[key]
            target = place
        if not isinstance(target, dict | bool):
            raise PayloadError(f"{self._name} has a $ref to a schema that it does not have: {reference[:100]!r}")
        if any(target is each for each in active if isinstance(each, dict)):
            raise PayloadError(f"{self._name} has a $ref that leads back to itself: {reference[:100]!r}")
        return self._expand(target, document, depth=depth + 1, active=(*active, target))


def _choose_compiler(name: str, draft: str) -> _Compile:
    """Return a function from a schema to its validator: patterns in time that is linear in the text, no requests."""
    package = import_format("json-schema")
    kind = getattr(package, _DRAFTS[draft])
    patterns = package.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)

    def compile_schema(schema: _Json, keywords: Mapping[str, _Json] | None = None) -> _Json:
        try:
            return kind(schema, pattern_options=patterns, validate_formats=False, offline=True, keywords=keywords)
        except (ValueError, TypeError) as error:
            raise PayloadError(f"{name} is not a valid JSON schema: {type(error).__name__}") from None

    return compile_schema


class _AnyBranch:
    """anyOf and oneOf as they are, without the errors of each branch, which would be much larger than the event."""

    def __init__(
        self, compile_schema: _Compile, _parent: object, branches: Sequence[_Json], path: Sequence[object]
    ) -> None:
        self._branches = [compile_schema(branch) for branch in branches]
        self._is_one = path[-1] == "oneOf"

    def validate(self, value: object) -> None:
        """Raise ValueError if a value breaks the rule."""
        n = sum(branch.is_valid(value) for branch in self._branches)
        if n == 0 or (self._is_one and n > 1):
            raise ValueError


def _find_rule(validator: _Json, event: Values) -> str:
    """Return the place in a schema that an event breaks: names of the schema alone, no value or key of the event."""
    package = import_format("json-schema")
    try:
        validator.validate(event)
    except package.ValidationError as error:
        place = "/".join(map(str, error.schema_path))[:150]
        lacks = f" ({error.kind.property[:50]!r})" if hasattr(error.kind, "property") else ""
        return f"{place!r}{lacks} of "
    return ""


def _find_alternatives(schema: _Json) -> Iterator[dict[str, Any]]:
    """Return a schema and those that judge the same value."""
    if isinstance(schema, dict):
        yield schema
        inner = [schema.get(key) for key in ("if", "then", "else")]
        for key in _BRANCHES:
            inner += schema[key] if isinstance(schema.get(key), list) else []
        for each in inner:
            yield from _find_alternatives(each)
