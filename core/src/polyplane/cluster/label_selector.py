"""meta/v1 LabelSelector: checked as the API server does, and brought into the one canonical form equal selectors share."""

from __future__ import annotations

from typing import Final

from polyplane.cluster.fields import Field, shown
from polyplane.cluster.metadata import check_labels
from polyplane.cluster.model import LabelSelector, Operator, Requirement
from polyplane.cluster.names import label_key_problem, label_value_problem

_SELECTOR: Final = ("matchLabels", "matchExpressions")
_EXPRESSION: Final = ("key", "operator", "values")
_OPERATORS: Final = ", ".join(operator.value for operator in Operator)


def parse_label_selector(selector: Field) -> LabelSelector:
    """Read a selector; missing, null and ``{}`` select everything. A caller to whom missing means more asks `Field.present`.

    :raises polyplane.errors.InvalidObject: for what the API server would reject
    """
    members = selector.members(_SELECTOR)
    requirements = {Requirement(key, Operator.IN, (value,)) for key, value in check_labels(members["matchLabels"]).items()}
    requirements |= {_requirement(expression) for expression in members["matchExpressions"].items()}
    return LabelSelector(tuple(sorted(requirements)))


def _requirement(expression: Field) -> Requirement:
    members = expression.members(_EXPRESSION)
    word = members["operator"].text()
    try:
        operator = Operator(word)
    except ValueError:
        raise members["operator"].invalid(f"{shown(word)} is not an operator; use one of {_OPERATORS}") from None
    values = [item.text() for item in members["values"].items()]
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            raise members["values"].invalid(
                f"must have at least one value for operator {operator.value}; add one, or use Exists or DoesNotExist"
            )
    elif values:
        raise members["values"].invalid(f"must be empty for operator {operator.value}; remove the values, or use In or NotIn")
    key = members["key"].text()
    if problem := label_key_problem(key):
        raise members["key"].invalid(problem)
    for item, value in zip(members["values"].items(), values, strict=True):
        if problem := label_value_problem(value):
            raise item.invalid(problem)
    return Requirement(key, operator, tuple(sorted(set(values))))
