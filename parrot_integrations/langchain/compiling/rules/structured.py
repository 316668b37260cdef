"""Rules for parsers of JSON: what is a text in it can be planned with before the answer is there."""

from collections.abc import Mapping
from typing import Any

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.models.parsers import WholeJsonParser, WholePydanticParser
from parrot_integrations.planning.structured import JsonValue, Schema
from parrot_integrations.planning.values import Answer, BreakError, Unknown

_CHANGES_TEXTS = ("str_strip_whitespace", "str_to_lower", "str_to_upper")


@rule(JsonOutputParser, WholeJsonParser)
def json_parser(
    planner: Planner, runnable: JsonOutputParser, value: Any, context: StepContext
) -> Any:
    """The JSON of an answer, whose schema is the one that the model was bound to, if any."""
    answer = _answer(runnable, value)
    schema: Schema = answer.schema or {}
    if not schema and runnable.pydantic_object is not None:
        schema = _texts(runnable.pydantic_object)
    return _planned(planner, JsonValue(answer.text, schema, runnable.get_name()), context)


@rule(PydanticOutputParser, WholePydanticParser)
def pydantic_parser(
    planner: Planner, runnable: PydanticOutputParser[Any], value: Any, context: StepContext
) -> Any:
    """The object that an answer describes, with those attributes that are texts of the answer."""
    answer = _answer(runnable, value)
    schema = _texts(runnable.pydantic_object)
    keys = _keys(runnable.pydantic_object)
    made = JsonValue(answer.text, schema, runnable.get_name(), attributes=keys)
    return _planned(planner, made, context)


def _planned(planner: Planner, value: JsonValue, context: StepContext) -> JsonValue:
    """The run settles it when the parser has parsed; what was planned on a wrong guess, then anew."""
    planner.plan.unknowns[context.key] = value
    if not value.schema:
        parsed = Unknown()
        planner.revisions.setdefault(context.key, []).append(parsed)
        value.then(lambda: parsed.settle(value.value) if value.misguessed() else None)
    return value


def _answer(parser: JsonOutputParser, value: Any) -> Answer:
    if not isinstance(value, Answer):
        raise BreakError("parses something other than a planned answer")
    if parser.diff:
        raise BreakError("gives the differences between parts of an answer")
    return value


def _texts(model: Any) -> Schema:
    """A schema that tells which fields of a class are texts, and leave the answer's as they are."""
    fields = _fields(model)
    texts = {_key(name, field): {"type": "string"} for name, field in fields if _is_text(field)}
    return {"type": "object", "properties": texts}


def _keys(model: Any) -> Mapping[str, str]:
    return {name: _key(name, field) for name, field in _fields(model) if _is_text(field)}


def _fields(model: Any) -> list[tuple[str, FieldInfo]]:
    """None of a class whose validators, or settings, may change any of them."""
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return []
    decorators = model.__pydantic_decorators__
    validators = (
        decorators.validators,
        decorators.field_validators,
        decorators.root_validators,
        decorators.model_validators,
    )
    if any(validators) or any(model.model_config.get(name) for name in _CHANGES_TEXTS):
        return []
    return list(model.model_fields.items())


def _is_text(field: FieldInfo) -> bool:
    """Whether it is a string that nothing but constraints is declared of."""
    constraints = all(type(m).__module__ == "annotated_types" for m in field.metadata)
    alias = field.validation_alias
    return field.annotation is str and constraints and (alias is None or isinstance(alias, str))


def _key(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or name)
