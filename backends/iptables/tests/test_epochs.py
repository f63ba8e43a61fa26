"""Recheck by mark, without a kernel: which connections are believed, at every moment of every change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from backend_programs import FRONT, IN, address_set, endpoint, isolated, policy, program, rule, web
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ipt_simulator import Marks, Simulator, stages
from ir_programs import packets, programs

from polyplane.errors import ConfigError
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet
from polyplane.ir.program import EMPTY, Action, Established, Options, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_iptables.backend import IptablesBackend
from polyplane_iptables.epochs import Marking, epoch_in, following, present
from polyplane_iptables.layout import Layout
from polyplane_iptables.native import Chain, Filter, Native
from polyplane_iptables.options import IptablesOptions
from polyplane_iptables.others import nft_writers, writers
from polyplane_iptables.owned import FORWARD, epoch_set_name
from polyplane_iptables.render import plan_to
from polyplane_iptables.turn import with_present_epochs

MASKS = [0x1, 0x3, 0x8100, 0xFF000000]
Case = tuple[Packet, str, str]


def copied(native: Native) -> Native:
    filters = {family: Filter(dict(table.chains), dict(table.jumps)) for family, table in native.filters.items()}
    return Native(filters, dict(native.sets), dict(native.ports), native.strangers, dict(native.epochs))


def passes(native: Native, case: Case, marks: Marks) -> bool:
    """Whether a packet of an answered connection passes; if so, it may be marked."""
    return Simulator(native, marks).forward(*case, state="ESTABLISHED").allowed


def begins(native: Native, case: Case) -> bool:
    return Simulator(native).forward(*case).allowed


def at_home(wanted: Program, packet: Packet) -> Case:
    places = {address: endpoint.interface for endpoint in wanted.endpoints.values() for address in endpoint.addresses}
    return packet, places.get(packet.source) or "uplink", places.get(packet.destination) or "uplink"


def in_place(drawn: Program, first: Program) -> Program:
    """The endpoints' places are the outside world's: they are the same in all programs."""
    kept = {
        key: replace(one, interface=first.endpoints[key].interface, addresses=first.endpoints[key].addresses)
        for key, one in drawn.endpoints.items()
        if key in first.endpoints
    }
    return replace(drawn, endpoints=kept, options=replace(drawn.options, established=Established.RECHECK), node_addresses=frozenset())


@st.composite
def changes(draw: st.DrawFn) -> list[Program]:
    """A program and what comes after it, sometimes nothing but members of its sets."""
    first = draw(programs())
    first = in_place(first, first)
    more = [in_place(one, first) for one in draw(st.lists(programs(), min_size=1, max_size=4))]
    if draw(st.booleans()):
        more = [replace(first, sets=first.sets | {key: one.sets[key] for key in first.sets.keys() & one.sets.keys()}) for one in more]
    return [first, *more]


@settings(deadline=None, max_examples=60, phases=[Phase.generate])
@given(changes(), st.lists(packets(), min_size=10, max_size=10), st.sampled_from(MASKS), st.data())
def test_no_mark_outlives_its_permission(some: list[Program], drawn: list[Packet], mask: int, data: st.DataObject) -> None:
    """Whatever changes, and wherever the agent dies: an open connection passes at most where the old or the new program lets it.

    And once an agent is through, exactly where the new one does.
    """
    first, *more = some
    cases = [at_home(first, packet) for packet in drawn if packet.protocol not in (1, 58)]
    layout, native, marks = Layout.of(first), Native(), Marks()
    made, _, generations = plan_to(layout, native, {}, mask)
    for _ in stages(native, made, marks):
        pass
    for target in more:
        before = [passes(native, case, marks) for case in cases]
        assert before == [begins(native, case) for case in cases]
        layout.follow(diff(layout.program, target))
        after = [begins(layout.native({}), case) for case in cases]
        death = data.draw(st.integers(0, 12))
        for attempt in (death, None):
            made, promised, generations = plan_to(layout, copied(native), generations, mask)
            for number, _ in enumerate(stages(native, made, marks)):
                for case, was, will in zip(cases, before, after, strict=True):
                    assert was or will or not passes(native, case, marks), (case, made)
                if number == attempt:
                    break
            else:
                assert native == promised
                break
            generations = {}
        assert [passes(native, case, marks) for case in cases] == after


def test_a_member_that_opens_and_closes_is_there_before_the_epoch() -> None:
    """Else a connection that it takes something from would be asked about too early, and believed for good."""
    rules = (
        rule("both", IN, 0, Action.DENY, sets=("both",), protocol=6, ports=(PortRange(81, 81),)),
        rule("both", IN, 1, sets=("both",), protocol=6, ports=(PortRange(80, 80),)),
        rule("both", IN, 2, protocol=6, ports=(PortRange(81, 81),)),
    )
    allow = policy(IN, *rules)
    pod = endpoint("a", "veth-a", "10.0.0.1", ingress=isolated(IN, allow))
    one, two = (program(pod, allow, address_set("both", *members)) for members in (("10.0.0.9",), ("10.0.0.9", "10.0.0.8")))
    packet = Packet(source=Cidr.parse("10.0.0.8"), destination=Cidr.parse("10.0.0.1"), protocol=6, source_port=9, port=81)
    case, marks, layout = (packet, "uplink", "veth-a"), Marks(), Layout.of(one)
    native = with_present_epochs(Native(), layout.native({}), Options(), 0xF)
    assert passes(native, case, marks)
    assert marks[packet]
    layout.follow(diff(one, two))
    made, _, _ = plan_to(layout, copied(native), {}, 0xF)
    for _ in stages(native, made, marks):
        passes(native, case, marks)
    assert not passes(native, case, marks)


def front(*members: str) -> Program:
    return web(members=replace(FRONT, members=FRONT.members.changed(added=map(Cidr.parse, members))))


def steps_of(one: Program, two: Program, mask: int = 0xFF) -> str:
    return IptablesBackend({"recheck_mark": mask}).polyplane_render(diff(one, two))


def test_what_only_opens_leaves_the_epoch_alone() -> None:
    assert steps_of(web(), front("10.0.0.3")).splitlines()[1:] == [
        next(line for line in steps_of(web(), front("10.0.0.3")).splitlines() if line.endswith(" 10.0.0.3"))
    ]


def test_the_epoch_is_written_before_what_closes_and_comes_with_the_table() -> None:
    lines = steps_of(front("10.0.0.3"), web()).splitlines()
    closing = next(at for at, line in enumerate(lines) if line.startswith("del ") and line.endswith(" 10.0.0.3"))
    table = lines.index("# iptables-restore --noflush")
    assert lines.index("add polyplane-e4-000000ff 0.0.0.2") < closing < table
    assert any("--mark 0x2/0xff" in line for line in lines[table:])
    assert "# ip6tables-restore --noflush" not in lines, "the other family's connections lose nothing"


def test_one_bit_is_cleared_each_time() -> None:
    lines = steps_of(front("10.0.0.3"), web(), 0x10).splitlines()
    resting, last = (at for at, line in enumerate(lines) if line == "# iptables-restore --noflush")
    cleared = lines.index("# connections of IPv4: clear 0x10 of their marks")
    assert lines.index("flush polyplane-e4-00000010") < resting < cleared < lines.index("add polyplane-e4-00000010 0.0.0.1") < last
    assert "-D polyplane-forward " in "".join(line for line in lines[resting:cleared] if "--mark" in line)
    assert not any("--mark" in line for line in lines[resting:cleared] if not line.startswith("-D "))


@pytest.mark.parametrize("family", [4, 6])
def test_what_another_connection_brought_about_is_asked_about(family: int) -> None:
    """It inherits the mark: it is not believed, and loses it when it is allowed."""
    source, other, pod = ("10.0.0.2", "10.0.0.7", "10.0.0.1") if family == 4 else ("fd00::2", "fd00::7", "fd00::1")
    native = with_present_epochs(Native(), Layout.of(web()).native({}), Options(), 0xF0)

    def packet(sender: str) -> Packet:
        return Packet(source=Cidr.parse(sender), destination=Cidr.parse(pod), protocol=6, source_port=9, port=80)

    inherited = {packet(source): 0x1F, packet(other): 0x1F}
    simulator = Simulator(native, inherited)
    assert simulator.forward(packet(other), "uplink", "veth-web", state="ESTABLISHED").allowed, "the mark counts"
    assert not simulator.forward(packet(other), "uplink", "veth-web", state="RELATED").allowed
    assert simulator.forward(packet(source), "uplink", "veth-web", state="RELATED").allowed
    assert inherited[packet(source)] == 0x0F


def test_connections_that_begin_are_neither_believed_nor_marked() -> None:
    native = with_present_epochs(Native(), Layout.of(web()).native({}), Options(), 0xF0)
    packet = Packet(source=Cidr.parse("10.0.0.7"), destination=Cidr.parse("10.0.0.1"), protocol=6, source_port=9, port=80)
    marks = {packet: 0x10}
    assert not Simulator(native, marks).forward(packet, "uplink", "veth-web").allowed
    marks = Marks()
    begun = replace(packet, source=Cidr.parse("10.0.0.2"))
    assert Simulator(native, marks).forward(begun, "uplink", "veth-web").allowed
    assert marks == {}


@pytest.mark.parametrize("mask", MASKS)
def test_epochs_are_spread_over_the_bits(mask: int) -> None:
    last = Marking(mask, 0).last
    values = {Marking(mask, epoch).value for epoch in range(1, last + 1)}
    assert len(values) == last == 2 ** mask.bit_count() - 1
    assert all(value and not value & ~mask for value in values)
    assert Marking(mask, last).value == mask


def test_set_and_table_have_to_agree() -> None:
    native = with_present_epochs(Native(), Layout.of(web()).native({}), Options(), 0x3)
    name = epoch_set_name(4, 0x3)
    assert (present(native, 4, 0x3), following(native, 4, 0x3)) == (1, 2)
    for said, next_one in ((frozenset({1, 2}), 3), (frozenset({2}), 3), (frozenset({3}), None), (frozenset(), None)):
        native.epochs[name] = said
        assert present(native, 4, 0x3) is None
        assert following(native, 4, 0x3) == next_one
    del native.epochs[name]
    assert following(native, 4, 0x3) is None


def test_a_table_without_marks_goes_on_where_the_set_says() -> None:
    native = with_present_epochs(Native(), Layout.of(web()).native({}), Options(), 0xF)
    native.filters[4] = Filter()
    assert (epoch_in(native.filters[4], 0xF), following(native, 4, 0xF)) == (0, 2)


@pytest.mark.parametrize(
    "odd",
    [
        "-j CONNMARK --set-xmark 0x1/0xf",
        "-j CONNMARK --save-mark --nfmask 0xf --ctmask 0xf",
        "-m connmark --mark 0x2/0xf -j RETURN",
        "-m connmark ! --mark 0x1/0xf -j RETURN",
    ],
)
def test_odd_rules_in_our_chains_are_no_epoch(odd: str) -> None:
    native = with_present_epochs(Native(), Layout.of(web()).native({}), Options(), 0xF)
    chains = native.filters[4].chains
    chains[FORWARD] = Chain([odd, *chains[FORWARD].rules])
    assert epoch_in(native.filters[4], 0xF) is None
    assert following(native, 4, 0xF) is None
    assert following(native, 6, 0xF) == 2


def test_another_mask_begins_anew() -> None:
    native = with_present_epochs(Native(), Layout.of(web()).native({}), Options(), 0xF)
    made, wanted, _ = plan_to(Layout.of(web()), native, {}, 0xF0)
    assert [step.clears for step in made.steps if step.clears] == [0xF0, 0xF0]
    assert wanted.epochs == {epoch_set_name(family, 0xF0): frozenset({1}) for family in (4, 6)}
    assert made.destroy == tuple(epoch_set_name(family, 0xF) for family in (4, 6))
    resting = next(step for step in made.steps if step.tool == 4)
    assert not any("--mark" in line for line in resting.text.splitlines() if not line.startswith("-D "))


@pytest.mark.parametrize("wanted", [EMPTY, replace(web(), options=Options(established=Established.KEEP))], ids=["nothing", "keep"])
def test_nothing_is_marked_where_nothing_is_asked_again(wanted: Program) -> None:
    text = steps_of(EMPTY, wanted)
    assert "polyplane-forward" in text
    assert "connmark" not in text.lower()
    assert "polyplane-e" not in text
    assert "flush polyplane-e4-000000ff" in steps_of(web(), wanted)


def test_ports_that_were_repaired_end_the_epoch() -> None:
    many = policy(IN, rule("many", IN, 0, protocol=6, ports=tuple(PortRange(port, port) for port in range(1, 100, 2))))
    world = program(endpoint("a", "veth-a", "10.0.0.1", ingress=isolated(IN, many)), many)
    native = with_present_epochs(Native(), Layout.of(world).native({}), Options(), 0xF)
    assert native.ports
    native.ports = {name: ports | {8} for name, ports in native.ports.items()}
    _, wanted, _ = plan_to(Layout.of(world), native, {}, 0xF)
    assert set(wanted.epochs.values()) == {frozenset({2})}


def marks_of(lines: Sequence[str], mask: int) -> list[str]:
    return writers("".join(f"{line}\n" for line in lines), mask, ours=True)


@pytest.mark.parametrize(
    ("rule", "bits"),
    [
        ("--set-xmark 0x80/0x80", 0x80),
        ("--set-xmark 0x10/0x1", 0x11),
        ("--set-xmark 0x0/0xffffff7f", 0xFFFFFF7F),
        ("--save-mark --nfmask 0xf --ctmask 0xff00", 0xFF0F),
        ("--save-mark --nfmask 0xffffffff --ctmask 0xffffffff", 0xFFFFFFFF),
        ("--restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", 0),
        ("--set-xmark 0x1/0xf --left-shift-mark 3", 0xFFFFFFFF),
        ("--save-mark", 0xFFFFFFFF),
        ("--set-something 0x1", 0xFFFFFFFF),
    ],
)
def test_what_others_write(rule: str, bits: int) -> None:
    line = f"-A PREROUTING -i eth0 -j CONNMARK {rule}"
    for bit in range(32):
        assert marks_of([line], 1 << bit) == ([line] if bits >> bit & 1 else [])
    assert marks_of([f"-A polyplane-forward -j CONNMARK {rule}"], 0xFFFFFFFF) == []


@pytest.mark.parametrize(
    ("rule", "bits"),
    [
        ("counter packets 0 bytes 0 ct mark set ct mark | 0x00000080", 0x80),
        ("ct mark set ct mark | 0x80 return", 0x80),
        ("ct mark set ct mark & 0xffffff7f", 0x80),
        ("ct mark set ct mark and 0xffffff00 or 0x1", 0xFF),
        ("ct mark set (ct mark & 0xff00ffff) ^ 0x00040000", 0xFF0000),
        ("meta l4proto udp meta mark 0x0000ca6c ct mark set meta mark", 0xFFFFFFFF),
        ("ct mark set 0x00000080", 0xFFFFFFFF),
        ("ct mark set ct mark | 0x80 & 0xf", 0xFFFFFFFF),
        ("ct mark set ct mark | meta mark", 0xFFFFFFFF),
        ("ct mark set ip saddr map { 10.0.0.1 : 0x00000001 }", 0xFFFFFFFF),
        ("ct mark set ct mark | 0x80 ct mark set 0x1", 0xFFFFFFFF),
        ("ct mark 0x80 meta mark set ct mark", 0),
    ],
)
def test_what_others_write_with_nft(rule: str, bits: int) -> None:
    text = f"table ip aws-cni {{\n\tchain snat-mark {{\n\t\t{rule}\n\t}}\n}}\n"
    for bit in range(32):
        assert list(nft_writers(text, 1 << bit)) == ([rule] if bits >> bit & 1 else [])


@pytest.mark.parametrize("given_mask", [0, -1, 1 << 32, True, "0", "ff", "0xfffffffff", "", 1.5])
def test_what_is_no_mask_is_refused(given_mask: object) -> None:
    with pytest.raises(ConfigError, match="recheck_mark"):
        IptablesOptions.parse({"recheck_mark": given_mask})


@pytest.mark.parametrize(("given_mask", "mask"), [("0xff000000", 0xFF000000), (0x30, 0x30), ("48", 0x30), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_masks_are_numbers_or_texts(given_mask: object, mask: int) -> None:
    assert IptablesOptions.parse({"recheck_mark": given_mask}).recheck_mark == mask


@pytest.mark.parametrize(("before", "after", "moves"), [(("7",), ("7", "8"), True), (("7", "8"), ("7",), False)])
def test_a_member_more_of_what_denies_closes(before: tuple[str, ...], after: tuple[str, ...], moves: bool) -> None:
    def moment(members: tuple[str, ...]) -> Program:
        block = policy(IN, rule("block", IN, 0, Action.DENY, sets=("block",)), rule("block", IN, 1))
        pod = endpoint("a", "veth-a", "10.0.0.1", ingress=isolated(IN, block))
        return program(pod, block, address_set("block", *(f"10.0.0.{one}" for one in members)))

    assert ("--mark 0x2/0xff" in steps_of(moment(before), moment(after))) is moves
