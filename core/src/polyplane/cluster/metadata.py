"""``metadata`` of an object: who it is, and the API server's rules for all kinds (meta/v1 ObjectMeta)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from polyplane.cluster.fields import Field, Report, shown
from polyplane.cluster.names import dns_label_problem, label_key_problem, label_value_problem, subdomain_problem

#: Where a namespaced object goes that names no namespace.
DEFAULT_NAMESPACE: Final = "default"

_ANNOTATIONS_LIMIT: Final = 256 * 1024
#: `status` is for whoever enforces to write. That of NetworkPolicy existed in Kubernetes 1.24 to 1.27 and still stands in exports.
_OBJECT: Final = ("apiVersion", "kind", "metadata", "spec", "status")
_META: Final = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
)
_META_TEXTS: Final = ("generateName", "selfLink", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_OWNER: Final = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")


class Identity(NamedTuple):
    """Namespace and name of an object, checked."""

    namespace: str
    name: str


def read_object(raw: object, *, api_version: str, kind: str, namespaced: bool) -> tuple[Identity, Field]:
    """Check everything of a policy object but its ``spec``; return who it is and the ``spec``, present or not.

    :raises polyplane.errors.InvalidObject: what the API server would reject
    """
    members = root(kind, raw, namespaced=namespaced).members(_OBJECT)
    for name, wanted in (("apiVersion", api_version), ("kind", kind)):
        if members[name].text() != wanted:
            raise members[name].invalid(f"{shown(members[name].value)} is not what is expected here; write {wanted}")
    return check_metadata(members["metadata"], namespaced=namespaced), members["spec"]


def root(kind: str, raw: object, *, namespaced: bool) -> Field:
    """Return the field of a whole raw object, named in errors as well as its own metadata allows."""
    metadata = raw_metadata(raw)

    def best(name: str, otherwise: str) -> str:
        value = metadata.get(name)
        return value[:253] if isinstance(value, str) and value else otherwise

    namespace = best("namespace", DEFAULT_NAMESPACE) if namespaced else ""
    return Field(raw, "", Report(kind, namespace, best("name", "(unnamed)")))


def check_metadata(metadata: Field, *, namespaced: bool) -> Identity:
    """Check everything under ``metadata`` and return namespace and name.

    :raises polyplane.errors.InvalidObject: what the API server would reject
    """
    if not metadata.present:
        raise metadata.invalid("is missing; write metadata with a name")
    members = metadata.members(_META)
    for name in _META_TEXTS:
        members[name].text()
    for name in ("generation", "deletionGracePeriodSeconds"):
        if members[name].integer() < 0:
            raise members[name].invalid("must not be negative; remove it")
    identity = _identity(members, namespaced=namespaced)
    check_labels(members["labels"])
    _check_annotations(members["annotations"])
    for finalizer in members["finalizers"].items():
        if problem := label_key_problem(finalizer.text()):
            raise finalizer.invalid(problem)
    for owner in members["ownerReferences"].items():
        _check_owner(owner)
    members["managedFields"].items()
    return identity


def _identity(members: Mapping[str, Field], *, namespaced: bool) -> Identity:
    name = members["name"].text()
    if not name:
        extra = " (generateName needs an API server)" if members["generateName"].present else ""
        raise members["name"].invalid(f"is missing{extra}; give the object a name")
    if problem := subdomain_problem(name):
        raise members["name"].invalid(problem)
    namespace = members["namespace"].text()
    if not namespaced:
        if namespace:
            raise members["namespace"].invalid("must not be set on an object that lives in no namespace; remove it")
        return Identity("", name)
    namespace = namespace or DEFAULT_NAMESPACE
    if problem := dns_label_problem(namespace):
        raise members["namespace"].invalid(problem)
    return Identity(namespace, name)


def check_labels(labels: Field) -> dict[str, str]:
    """Read a map of labels.

    :raises polyplane.errors.InvalidObject: for a bad key or value
    """
    result = {}
    for key, item in labels.entries():
        if problem := label_key_problem(key):
            raise labels.invalid(problem)
        value = item.text()
        if problem := label_value_problem(value):
            raise item.invalid(problem)
        result[key] = value
    return result


def _check_annotations(annotations: Field) -> None:
    size = 0
    for key, item in annotations.entries():
        # The API server folds the case of an annotation's key before it checks it.
        if problem := label_key_problem(key.lower()):
            raise annotations.invalid(problem.replace("label key", "annotation key"))
        size += len(key) + len(item.text().encode("utf-8", "surrogatepass"))
    if size > _ANNOTATIONS_LIMIT:
        raise annotations.invalid(f"is {size} bytes long; at most {_ANNOTATIONS_LIMIT} are allowed")


def _check_owner(owner: Field) -> None:
    members = owner.members(_OWNER)
    for name in ("apiVersion", "kind", "name", "uid"):
        if not members[name].text():
            raise members[name].invalid("is missing; fill it in or remove the reference")
    members["controller"].boolean()
    members["blockOwnerDeletion"].boolean()


def raw_metadata(raw: object) -> Mapping[str, Any]:
    """``metadata`` of a raw object, or nothing when it has none or it is no object."""
    metadata = raw.get("metadata") if isinstance(raw, Mapping) else None
    return metadata if isinstance(metadata, Mapping) else {}
