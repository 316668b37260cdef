"""Engines in a YAML file."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parrot_backend.endpoints.specs import EngineSpec, told
from parrot_backend.wire.errors import InvalidRequestError


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    engines: list[EngineSpec] = Field(min_length=1)


def read_specs(path: Path) -> list[EngineSpec]:
    """The engines of a YAML file: a list `engines`, each entry an `EngineSpec`.

    Raises:
        InvalidRequestError: it can't be read, or has something wrong; one line that says where.
    """
    try:
        content = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 - a SafeLoader
        if not isinstance(content, dict):
            raise InvalidRequestError(f"{path}: it has to be a list under 'engines:'")
        return _File.model_validate(content).engines
    except OSError as error:
        raise InvalidRequestError(f"can't read {path}: {error.strerror}") from None
    except ValidationError as error:
        at_top = len(error.errors(include_input=False)[0]["loc"]) < 2
        known = _File if at_top else EngineSpec
        raise InvalidRequestError(told(error, str(path), known)) from None
    except yaml.YAMLError as error:
        raise InvalidRequestError(f"{path}: {_where_wrong(error)}") from None
    except ValueError as error:  # no UTF-8
        raise InvalidRequestError(f"{path}: {error}") from None
    except RecursionError:
        raise InvalidRequestError(f"{path}: it is nested too deeply") from None


def _where_wrong(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        line = error.problem_mark.line + 1
        return f"line {line}: {error.problem or 'it is no YAML'}"
    return f"it is no YAML: {str(error).splitlines()[0]}"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a field that is there twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (name := key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{name}' is there twice", key.start_mark
                )
            seen.add(name)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping
