"""What the Kubernetes API accepts as a name, a label, a label's value and a port's name.

Each function returns None for a good value and otherwise what is wrong and what to write instead, without naming the field.
Source of the rules: ``k8s.io/apimachinery/pkg/util/validation``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from polyplane.cluster.fields import shown

_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_LABEL_TOKEN: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PORT_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")

_LABEL_LIMIT: Final = 63
_SUBDOMAIN_LIMIT: Final = 253
_PORT_NAME_LIMIT: Final = 15
#: Clusters have many objects and few different labels and port names: most were checked a moment ago.
_REMEMBERED: Final = 4096


def subdomain_problem(name: str) -> str | None:
    """Check the name of most objects: a DNS-1123 subdomain."""
    if len(name) <= _SUBDOMAIN_LIMIT and _DNS_SUBDOMAIN.fullmatch(name):
        return None
    return (
        f"{shown(name)} is not a valid name; use at most {_SUBDOMAIN_LIMIT} lower-case letters, digits, '-' and '.', "
        "each part between dots starting and ending with a letter or digit"
    )


def dns_label_problem(name: str) -> str | None:
    """Check the name of a namespace: a DNS-1123 label."""
    if len(name) <= _LABEL_LIMIT and _DNS_LABEL.fullmatch(name):
        return None
    return (
        f"{shown(name)} is not a valid namespace; use at most {_LABEL_LIMIT} lower-case letters, digits and '-', "
        "starting and ending with a letter or digit"
    )


@lru_cache(_REMEMBERED)
def label_key_problem(key: str) -> str | None:
    """Check a label's key: a name, optionally after a DNS subdomain and a slash."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > _SUBDOMAIN_LIMIT or not _DNS_SUBDOMAIN.fullmatch(prefix)):
        return f"{shown(key)} is not a valid label key; what stands before '/' must be a DNS name like example.org"
    if len(name) <= _LABEL_LIMIT and _LABEL_TOKEN.fullmatch(name):
        return None
    return (
        f"{shown(key)} is not a valid label key; use at most {_LABEL_LIMIT} letters, digits, '-', '_' and '.', "
        "starting and ending with a letter or digit"
    )


@lru_cache(_REMEMBERED)
def label_value_problem(value: str) -> str | None:
    """Check a label's value; the empty string is one."""
    if not value or (len(value) <= _LABEL_LIMIT and _LABEL_TOKEN.fullmatch(value)):
        return None
    return (
        f"{shown(value)} is not a valid label value; use at most {_LABEL_LIMIT} letters, digits, '-', '_' and '.', "
        "starting and ending with a letter or digit"
    )


@lru_cache(_REMEMBERED)
def port_name_problem(name: str) -> str | None:
    """Check the name of a port: an IANA service name (RFC 6335, section 5.1)."""
    good_shape = len(name) <= _PORT_NAME_LIMIT and _PORT_NAME.fullmatch(name) and "--" not in name
    if good_shape and any(character.isalpha() for character in name):
        return None
    if name.isascii() and name.isdigit():
        return f"{shown(name)} is not a port name, since it has no letter; write a number, without quotes"
    return (
        f"{shown(name)} is not a valid port name; use at most {_PORT_NAME_LIMIT} lower-case letters, digits and '-', "
        "with a letter, without '--', and not starting or ending with '-'"
    )
