"""Strategic merge patches: merge patches that know which lists of a kind are merged by a key.

Understood: `$patch: delete|replace|merge` in objects and in list items, `$retainKeys`, `$deleteFromPrimitiveList/…`,
`$setElementOrder/…`. Source: Kubernetes 1.36, staging/src/k8s.io/apimachinery/pkg/util/strategicpatch, and
"strategic-merge-patch.md" of kubernetes/community. Pure; the keys come from `patch_schema`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from kdnsctl.lab.patch_schema import TYPES, Field
from kdnsctl.lab.replies import JSON, bad_request

_DIRECTIVE: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_VALUES: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"
_PLAIN: Final = Field()


def strategic_merge(kind: str, document: JSON, patch: Any) -> JSON:
    """`document` (of kind `kind`) with `patch` applied; neither is changed. Raises Refused (400) for a bad patch."""
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: a strategic merge patch is a JSON object")
    return _merge_object(TYPES.get(kind, {}), document, patch)


def _merge_object(fields: Mapping[str, Field], current: JSON, patch: JSON) -> JSON:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: _without_directives(value) for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"Unknown patch type '{directive}'")
    result = dict(current)
    if _RETAIN in patch:
        kept = set(patch[_RETAIN])
        result = {key: value for key, value in result.items() if key in kept}
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(fields.get(key, _PLAIN), result, key, value, patch)
    for key in patch:
        name = _name_after(key, _DELETE_VALUES)
        if name is not None and name not in patch:
            _merge_field(fields.get(name, _PLAIN), result, name, [], patch)
        name = _name_after(key, _ORDER)
        if name is not None and name not in patch and isinstance(result.get(name), list):
            result[name] = _ordered(fields.get(name, _PLAIN), result[name], patch[key])
    return result


def _name_after(key: str, prefix: str) -> str | None:
    return key[len(prefix) :] if key.startswith(prefix) else None


def _merge_field(field: Field, result: JSON, key: str, value: Any, patch: JSON) -> None:
    if value is None:
        result.pop(key, None)
    elif isinstance(value, dict) and isinstance(result.get(key), dict) and not field.replaced:
        result[key] = _merge_object(_below(field), result[key], value)
    elif isinstance(value, dict):
        result[key] = _merge_object(_below(field), {}, value)
    elif isinstance(value, list) and field.key is not None:
        merged = _merge_items(field, result.get(key) or [], value)
        result[key] = _ordered(field, merged, patch.get(_ORDER + key))
    elif isinstance(value, list) and field.merged_values:
        dropped = patch.get(_DELETE_VALUES + key) or []
        kept = [item for item in result.get(key) or [] if item not in dropped]
        merged = kept + [item for item in value if item not in kept]
        result[key] = _ordered(field, merged, patch.get(_ORDER + key))
    else:
        result[key] = _without_directives(value)


def _below(field: Field) -> Mapping[str, Field]:
    return TYPES.get(field.type, {}) if field.type is not None else {}


def _merge_items(field: Field, current: list[Any], patch: list[Any]) -> list[Any]:
    key = field.key or ""
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [_without_directives(item) for item in patch if _DIRECTIVE not in item]
    result = list(current)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        places = [index for index, old in enumerate(result) if old.get(key) == item[key]]
        if item.get(_DIRECTIVE) == "delete":
            result = [old for index, old in enumerate(result) if index not in places]
        elif places:
            # Where the key is not unique (Service ports 53/UDP and 53/TCP) a real server changes the first one, too.
            result[places[0]] = _merge_object(_below(field), result[places[0]], item)
        else:
            result.append(_merge_object(_below(field), {}, item))
    return result


def _ordered(field: Field, items: list[Any], order: Any) -> list[Any]:
    """Bring the items that `order` names into its order; the others keep their place relative to those before them."""
    if not isinstance(order, list):
        return items

    def name(item: Any) -> Any:
        return item.get(field.key) if field.key is not None else item

    rank = {(entry.get(field.key) if isinstance(entry, dict) else entry): index for index, entry in enumerate(order)}
    named = iter(sorted((item for item in items if name(item) in rank), key=lambda item: rank[name(item)]))
    return [next(named) if name(item) in rank else item for item in items]


def _without_directives(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_directives(item) for key, item in value.items() if not key.startswith("$")}
    if isinstance(value, list):
        return [_without_directives(item) for item in value]
    return copy.deepcopy(value)
