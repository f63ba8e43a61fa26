"""``polyplane explain``: why a packet may or may not pass."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from polyplane.agent import compile_store, only_node, read_directory
from polyplane.cli.options import ConfigFlag, ManifestsArgument, NodeFlag, Output, OutputFlag, read
from polyplane.cli.output import console, print_data, print_table
from polyplane.cli.plain import plain
from polyplane.cli.problems import warn
from polyplane.cluster.store import Store
from polyplane.errors import ConfigError, InvalidProgram
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Evaluation, Packet, Verdict, evaluate
from polyplane.ir.parse import PROTOCOL_NAMES
from polyplane.ir.program import PROTOCOLS_WITH_PORTS, IcmpType

#: ICMP and ICMPv6 echo request: what explain takes for a packet of these protocols.
_ECHO = {1: IcmpType(8, 0), 58: IcmpType(128, 0)}


def explain(
    directory: ManifestsArgument,
    source: Annotated[str, typer.Argument(help="Who sends: an address, or a pod as namespace/name.", metavar="FROM")],
    destination: Annotated[str, typer.Argument(help="Who receives: an address, or a pod as namespace/name.", metavar="TO")],
    *,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Destination port.")] = 80,
    protocol: Annotated[str, typer.Option(help="tcp, udp, sctp, icmp, icmpv6, or a number.")] = "tcp",
    source_port: Annotated[int, typer.Option(min=0, max=65535, help="Source port.")] = 40000,
    config: ConfigFlag = None,
    node: NodeFlag = None,
    output: OutputFlag = Output.TEXT,
) -> None:
    """Decide about one packet that opens a connection, and show which rules were asked.

    Exit status 0: it passes; 1: it is denied. It is seen from one node: a pod of another node has its policies enforced there.
    """
    settings = read(config, {"node": node}).config
    store = read_directory(directory)
    warn(store, directory)
    name = settings.node or _node_of(store, destination, source)
    program = compile_store(store, name, options=settings.options, node_addresses=settings.own_addresses)
    number = _protocol(protocol)
    family = 6 if number == 58 or ":" in source or ":" in destination else 4
    ports = number in PROTOCOLS_WITH_PORTS
    packet = Packet(
        source=_address(store, source, family),
        destination=_address(store, destination, family),
        protocol=number,
        port=port if ports else 0,
        source_port=source_port if ports else 0,
        icmp=_ECHO.get(number),
    )
    evaluation = evaluate(program, packet)
    if output is Output.TEXT:
        _print(evaluation)
    else:
        print_data({"node": name, **plain(evaluation)}, output)
    if evaluation.verdict is Verdict.DENY:
        raise typer.Exit(1)


def _print(evaluation: Evaluation) -> None:
    if evaluation.trail:
        print_table(("where", "asked", "answer"), [(step.where, step.subject, step.outcome) for step in evaluation.trail])
    decision = evaluation.decision
    by = getattr(decision.decided_by, "origin", decision.decided_by) or "no rule"
    style = "bold green" if evaluation.verdict is Verdict.ALLOW else "bold red"
    console().print(
        Text.assemble((evaluation.verdict.value, style), f": {by}", f" (rule id {decision.rule_id})" if decision.rule_id else "")
    )


def _node_of(store: Store, *ends: str) -> str:
    """Return the node to look from: the only one, else the receiver's, else the sender's."""
    by_address = {address.address_text: pod for pod in store.pods.values() for address in pod.addresses}
    for end in ends:
        pod = store.pods.get(end) or by_address.get(end)
        if pod is not None and pod.node:
            return pod.node
    return only_node(store)


def _protocol(text: str) -> int:
    for number, name in PROTOCOL_NAMES.items():
        if text.lower() == name:
            return number
    if text.isdecimal() and int(text) <= 255:
        return int(text)
    raise ConfigError(f"--protocol {text!r}: write one of {', '.join(PROTOCOL_NAMES.values())}, or a number up to 255")


def _address(store: Store, text: str, family: int) -> Cidr:
    if (pod := store.pods.get(text)) is not None:
        address = next((address for address in pod.addresses if address.family == family), None)
        if address is None:
            raise ConfigError(f"pod {text} has no IPv{family} address")
        return address
    try:
        address = Cidr.parse(text)
    except InvalidProgram as error:
        raise ConfigError(f"{text!r} is neither an address nor a pod of these manifests; pods are written namespace/name") from error
    if not address.is_host or address.family != family:
        raise ConfigError(f"{text} is not a single IPv{family} address")
    return address
