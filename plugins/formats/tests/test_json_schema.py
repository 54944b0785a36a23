"""Events in JSON with a schema: the verdict is that of another validator, and no schema makes unbounded work."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry as SchemaResources
from referencing.jsonschema import DRAFT202012

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.infra.ingest.streams.decode import Decoder
from skewless.infra.log.log_columns import RAW, REJECT
from skewless.infra.platform.formats.codec import PayloadError
from skewless_formats.events import RegistryReader
from skewless_formats.json_schema import check_properties, compile_json
from skewless_formats.registry import RegisteredSchema, SchemaRegistry
from tests.servers.registry import Registry
from tests.worlds.formats import JSON_SCHEMA, json_message, json_schema
from tests.worlds.streams import BASE

EVENT = {"card": 7, "amount": 1.5, "shop": "a", "online": True, "at": BASE}
SUBJECT = "payments-value"
SECRET = "4111-1111-1111-1111"  # noqa: S105 - a value that no error may have
NEWEST = "https://json-schema.org/draft/2020-12/schema"

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", "ü"]) | st.just(0.5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
EVENTS = st.dictionaries(NAMES, VALUES, max_size=3)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
RULES = st.one_of(
    st.fixed_dictionaries({"type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True)}),
    st.fixed_dictionaries({"enum": st.lists(VALUES, min_size=1, max_size=3, unique_by=json.dumps)}),
    st.fixed_dictionaries({"const": VALUES}),
    st.fixed_dictionaries({"minimum": st.integers(-2, 2)}),
    st.fixed_dictionaries({"exclusiveMaximum": st.integers(-2, 2)}),
    st.fixed_dictionaries({"minLength": st.integers(0, 2)}),
    st.fixed_dictionaries({"pattern": st.sampled_from(["^a", "b$", "[a-b]"])}),
    st.fixed_dictionaries({"required": st.lists(NAMES, max_size=2, unique=True)}),
    st.fixed_dictionaries({"maxProperties": st.integers(0, 2)}),
    st.fixed_dictionaries({"uniqueItems": st.booleans()}),
    st.fixed_dictionaries(
        {"$ref": st.sampled_from(["#/$defs/one", "#/$defs/two/not", "other.json", "other.json#/not"])}
    ),
)


def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return rules for the parts of a value, and rules that other rules make up."""
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({"properties": st.dictionaries(NAMES, inner, max_size=3)}),
        st.fixed_dictionaries({"properties": st.dictionaries(NAMES, inner), "additionalProperties": inner}),
        st.fixed_dictionaries({"patternProperties": st.dictionaries(st.just("[ab]"), inner)}),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"contains": inner}),
        st.fixed_dictionaries({"propertyNames": inner}),
        st.fixed_dictionaries({"allOf": some, "unevaluatedProperties": st.booleans()}),
        st.fixed_dictionaries({"anyOf": some}),
        st.fixed_dictionaries({"oneOf": some}),
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"if": inner, "then": inner, "else": inner}),
        st.tuples(inner, inner).map(lambda pair: {**pair[0], **pair[1]}),
    )


SCHEMAS = st.recursive(RULES, nest, max_leaves=5)
PARTS = st.fixed_dictionaries({"one": RULES.filter(lambda rule: "$ref" not in rule), "two": st.just({"not": {}})})


def registered(schema: object, **references: object) -> RegisteredSchema:
    """Return a schema as the registry has it; ``references``: by name without its end."""
    texts = tuple((f"{name}.json", json.dumps(each)) for name, each in references.items())
    return RegisteredSchema(id=3, kind="JSON", text=json.dumps(schema), references=texts)


def find_reason(schema: RegisteredSchema, body: bytes) -> str:
    """Return why an event is refused, empty: it is read."""
    read = compile_json(schema)
    try:
        assert isinstance(read(body), dict)
    except PayloadError as error:
        return str(error)
    return ""


def is_read(schema: RegisteredSchema, event: object) -> bool:
    reason = find_reason(schema, json.dumps(event).encode())
    assert reason.startswith("the message does not match '") or not reason
    return not reason


@given(SCHEMAS, PARTS, st.lists(EVENTS, min_size=1, max_size=5))
def test_the_verdict_is_that_of_another_validator(schema: Any, parts: Any, events: list[Any]) -> None:  # noqa: ANN401 - JSON
    """Also with references inside the schema, and to another one."""
    schema = {"$schema": NEWEST, "$defs": parts, **schema}
    other = {"not": {"required": ["a"]}}
    resources = SchemaResources().with_resource("other.json", DRAFT202012.create_resource(other))
    oracle = jsonschema.Draft202012Validator(schema, registry=resources)
    for event in events:
        assert is_read(registered(schema, other=other), event) == oracle.is_valid(event)


@given(st.sampled_from(["04", "06", "07"]), SCHEMAS.filter(lambda schema: "$" not in json.dumps(schema)), EVENTS)
def test_older_drafts_are_read_as_they_were(draft: str, schema: Any, event: Any) -> None:  # noqa: ANN401 - JSON
    schema = {"$schema": f"http://json-schema.org/draft-{draft}/schema#", **schema}
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError:  # draft 4 has another exclusiveMaximum, and no booleans
        with pytest.raises(PayloadError, match="schema 3 is not a valid JSON schema"):
            compile_json(registered(schema))
        return
    assert is_read(registered(schema), event) == jsonschema.validators.validator_for(schema)(schema).is_valid(event)


def test_without_a_draft_it_is_draft_7_where_a_ref_stands_alone() -> None:
    schema = {"definitions": {"a": True}, "$ref": "#/definitions/a", "required": ["b"]}
    assert is_read(registered(schema), {})
    assert not is_read(registered({"$schema": NEWEST, **schema}), {})
    assert not is_read(registered({"dependencies": {"a": ["b"]}}), {"a": 1})


@pytest.mark.parametrize(
    ("name", "reference", "base"),
    [
        ("shop", "shop.json", None),
        ("shop", "shop.json", "https://shops.com/payment.json"),
        ("https://shops.com/shop", "shop.json", "https://shops.com/payment.json"),
        ("https://shops.com/shop", "https://shops.com/shop.json#", None),
        ("shop", "#/definitions/shop", "https://shops.com/payment.json"),
        ("shop", "https://shops.com/payment.json#/definitions/shop", "https://shops.com/payment.json"),
    ],
)
def test_a_schema_is_named_as_its_reference_or_relative_to_its_id(name: str, reference: str, base: str | None) -> None:
    schema: dict[str, Any] = {"properties": {"shop": {"$ref": reference}}, "definitions": {"shop": {"type": "string"}}}
    if base is not None:
        schema["$id"] = base
    shop = {"$id": "https://shops.com/shop.json", "type": "string"}
    assert is_read(registered(schema, **{name: shop}), {"shop": "a"})
    assert not is_read(registered(schema, **{name: shop}), {"shop": 1})


@pytest.mark.parametrize("event", [EVENT, {"card": 7}, {"card": "7", "at": "2025-01-31T12:00:00Z"}, {"card": 1.0}])
def test_values_become_the_columns_that_they_become_without_a_schema(schemas: Registry, event: dict[str, Any]) -> None:
    number = schemas.add(SUBJECT, "JSON", json.dumps({"properties": {"card": {"default": 9}}}))
    reader = RegistryReader(JSON_SCHEMA, SchemaRegistry(schemas.url))
    with_schema = Decoder(JSON_SCHEMA, [], 1_000, reader).decode([json_message(number, event)], [0], BASE)
    plain = Decoder(replace(JSON_SCHEMA, format="json"), [], 1_000).decode([json.dumps(event).encode()], [0], BASE)
    assert with_schema.drop_columns(RAW) == plain.drop_columns(RAW)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (EVENT | {"shop": SECRET}, "'properties/shop/pattern' of schema 1"),
        (EVENT | {"amount": -4111}, "'properties/amount/minimum' of schema 1"),
        (EVENT | {"card": SECRET}, "'properties/card/type' of schema 1"),
        ({SECRET: SECRET}, "'required' ('card') of schema 1"),
        (
            EVENT | {"tags": {SECRET: 1, "b": {SECRET: SECRET}}},
            "'properties/tags/additionalProperties/anyOf' of schema 1",
        ),
        (EVENT | {"one": SECRET}, "'properties/one/oneOf' of schema 1"),
        (EVENT | {"flat": {SECRET: 1}}, "'properties/flat/additionalProperties' of schema 1"),
        (EVENT | {"named": {SECRET: 1}}, "'properties/named/propertyNames/maxLength' of schema 1"),
    ],
)
def test_an_invalid_event_goes_to_quarantine_with_place_and_rule_and_no_value(
    schemas: Registry, event: dict[str, Any], reason: str
) -> None:
    more = {
        "tags": {"additionalProperties": {"anyOf": [{"type": "integer"}, {"maxProperties": 0}]}},
        "one": {"oneOf": [{"type": "string"}, {"minLength": 1}]},
        "flat": {"additionalProperties": False},
        "named": {"propertyNames": {"maxLength": 3}},
    }
    number = schemas.add(SUBJECT, "JSON", json.dumps(json_schema(**more)))
    payloads = [json_message(number, event), json_message(number, EVENT), json_message(number, [SECRET])]
    reader = RegistryReader(JSON_SCHEMA, SchemaRegistry(schemas.url))
    rows = Decoder(JSON_SCHEMA, [], 1_000, reader).decode(payloads, range(3), BASE)
    assert rows[REJECT].to_pylist() == [
        f"the message does not match {reason}",
        None,
        "the message is not a JSON object",
    ]
    assert rows[RAW].to_pylist() == [payloads[0], None, payloads[2]]


def nested(keyword: str, n: int) -> Any:  # noqa: ANN401 - JSON
    schema: Any = {}
    for _ in range(n):
        schema = {keyword: schema}
    return schema


TWICE = {"allOf": [{"$ref": "#/definitions/1"}, {"$ref": "#/definitions/1"}]}
LEVELS = {str(n): {"allOf": [{"$ref": f"#/definitions/{n + 1}"}] * 2} for n in range(15)} | {"15": True}
DOUBLING: Any = {"properties": {"a": True}}
for _ in range(20):
    DOUBLING = {"unevaluatedProperties": False, "allOf": [DOUBLING]}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "#"}, "has a $ref that leads back to itself: '#'"),
        ({"properties": {"next": {"$ref": "#"}}}, "has a $ref that leads back to itself"),
        ({"definitions": LEVELS, "$ref": "#/definitions/0"}, "has more than 10000 parts"),
        ({"enum": list(range(20_000))}, "has more than 10000 parts"),
        ({"allOf": [{"pattern": "a"}] * 101}, "or 100 patterns"),
        ({"patternProperties": {"a" * n: True for n in range(101)}}, "or 100 patterns"),
        ({"$schema": NEWEST, **DOUBLING}, "has more than 3 times unevaluatedProperties inside each other"),
        (nested("not", 100), "is nested too deeply"),
        ({"$ref": "http://127.0.0.1:1/a.json"}, "to a schema that it does not have: 'http://127.0.0.1:1/a.json'"),
        ({"$ref": "file:///etc/passwd"}, "to a schema that it does not have"),
        ({"$ref": "#/definitions/none"}, "to a schema that it does not have"),
        ({"$ref": "#a", "a": True}, "to a schema that it does not have"),
        ({"$ref": "http://["}, "to a schema that it does not have"),
        ({"$ref": "#anchor", "definitions": {"a": {"$anchor": "anchor"}}}, "to a schema that it does not have"),
        ({"$schema": NEWEST, "$dynamicRef": "#a"}, "has a $dynamicRef, which is not supported"),
        ({"properties": {"a": {"$id": "http://b/", "$ref": "#/c"}}, "c": True}, "has an $id inside"),
        ({"$schema": "http://127.0.0.1:1/my-schema"}, "is of an unknown draft"),
        ({"$schema": 5}, "is of an unknown draft"),
        ({"pattern": "(a{1000}){1000}"}, "is not a valid JSON schema"),
        ({"pattern": r"(?=a)\1"}, "is not a valid JSON schema"),
        ({"type": "nothing"}, "is not a valid JSON schema"),
        ({"$schema": NEWEST, "$ref": "#/$defs/a", "$defs": {"a": True}, "allOf": 5}, "is not a valid JSON schema"),
        ([], "is not a valid JSON schema"),
    ],
)
def test_a_schema_without_bounds_or_one_that_is_not_valid_is_refused(schema: object, reason: str) -> None:
    with pytest.raises(PayloadError) as refusal:
        compile_json(registered(schema))
    assert reason in str(refusal.value)
    assert str(refusal.value).startswith("schema 3 ")


def test_formats_and_encodings_are_notes() -> None:
    for note in ({"format": "date"}, {"contentEncoding": "base64"}, {"contentMediaType": "application/json"}):
        assert is_read(registered({"properties": {"a": note}}), {"a": "{!"})


def test_closed_objects_may_be_inside_each_other() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(8):
        schema = {"properties": {"a": schema}, "unevaluatedProperties": False}
    event: Any = 1
    for _ in range(8):
        event = {"a": event}
    assert is_read(registered({"$schema": NEWEST, **schema}), event)
    assert not is_read(registered({"$schema": NEWEST, **schema}), {"a": {"b": 1}})


def test_what_no_ref_uses_does_not_count() -> None:
    unused = {"definitions": LEVELS, "$defs": {"a": {"$ref": "http://127.0.0.1:1/"}}, "properties": {"$ref": TWICE}}
    schema = {**unused, "definitions": {**LEVELS, "1": {"minProperties": 1}}}
    assert is_read(registered(schema), {"$ref": {"a": 1}})
    assert not is_read(registered(schema), {"$ref": {}})
    assert is_read(registered({"const": {"a": {"$ref": "#/b"}}}), {"a": {"$ref": "#/b"}})


def test_an_event_that_breaks_many_branches_is_refused_in_the_time_of_one() -> None:
    """A list of all errors would be a hundred times as long as the event."""
    schema = registered({"properties": {"a": {"anyOf": [{"items": {"minimum": 5}}] * 100}}})
    assert not is_read(schema, {"a": [1] * 100_000})


@given(st.binary(max_size=100) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_an_event_or_a_reason(body: bytes) -> None:
    schema = registered({"properties": {"a": {"pattern": "^a"}}, "maxProperties": 1})
    strange = [b'{"a": "\\ud800"}', b'{"a":' * 2_000, b'{"a": 1e999}', b'{"a": NaN}', b'{"a": "' + body + b'"}']
    for payload in (body, *strange):
        reason = find_reason(schema, payload)
        assert reason.isprintable() or not reason
        assert len(reason) < 300


KEYWORDS = [
    "$schema", "$id", "$ref", "$anchor", "$defs", "definitions", "$dynamicRef", "type", "enum", "const",
    "properties", "patternProperties", "items", "not", "if", "additionalProperties", "prefixItems",
    "additionalItems", "contains", "minContains", "propertyNames", "required", "dependencies", "allOf", "anyOf",
    "oneOf", "then", "else", "minimum", "exclusiveMinimum", "multipleOf", "minLength", "pattern", "format",
    "uniqueItems", "maxProperties", "dependentSchemas", "dependentRequired", "unevaluatedItems",
    "unevaluatedProperties", "contentEncoding", "contentMediaType",
]  # fmt: skip
STRANGE = st.sampled_from(
    ["", "#", "#/", "#/~1", "#/-1", "a/b#c", "http://[", "\ud800", "\0", "[", "(", "object", NEWEST, "base64"]
) | st.sampled_from([-1, 0, 1.5, 2**70, float("nan"), float("inf"), 1e300, -1e-320])
ANY_SCHEMAS = st.recursive(
    SCALARS | STRANGE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS) | STRANGE.map(str), inner),
    max_leaves=10,
)


@given(ANY_SCHEMAS, EVENTS)
def test_any_schema_is_one_or_is_refused(schema: Any, event: Any) -> None:  # noqa: ANN401 - JSON
    other = registered(schema, other=schema)
    try:
        compile_json(other)
    except PayloadError as error:
        reason = str(error)
    else:
        reason = find_reason(other, json.dumps(event).encode())
        with suppress(PayloadError):
            check_properties(other, [Column(name="card", dtype=DType.INT64)])
    assert reason.isprintable() or not reason
    assert len(reason) < 300


def test_a_plan_needs_a_property_for_each_column(schemas: Registry) -> None:
    for schema in (
        json_schema(),
        {"allOf": [json_schema(card=None), {"if": {}, "then": {"properties": {"card": True}}}]},
        {"$ref": "#/definitions/a", "definitions": {"a": json_schema()}},
        {"additionalProperties": {"type": "integer"}},
        {"patternProperties": {"^[a-z]+$": True}},
    ):
        schemas.add(SUBJECT, "JSON", json.dumps(schema))
        RegistryReader(JSON_SCHEMA, SchemaRegistry(schemas.url)).check_latest()
    column = Column(name="cart", dtype=DType.INT64)
    for wrong in (json_schema(), True, {"type": "object"}, {"properties": {"other": {"properties": {"cart": True}}}}):
        with pytest.raises(PayloadError, match="schema 3 lacks the property 'cart'"):
            check_properties(registered(wrong), [column])
    schemas.add(SUBJECT, "JSON", json.dumps(json_schema(shop=None)))
    with pytest.raises(DefinitionError, match="latest schema: schema 6 lacks the property 'shop'"):
        RegistryReader(JSON_SCHEMA, SchemaRegistry(schemas.url)).check_latest()
