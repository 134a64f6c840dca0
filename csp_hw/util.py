# SPDX-License-Identifier: Apache-2.0
"""Small pieces of logic that several blocks use."""

from amaranth import (
    Cat,
    ClockDomain,
    ClockSignal,
    DomainRenamer,
    Instance,
    Module,
    ResetSignal,
    Shape,
    Signal,
    Value,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In


def delayed(m: Module, value, cycles: int, name: str, *, reset_less: bool = False):
    """Give a value some cycles later, through one register ``name`` as wide as all cycles.

    ``reset_less`` spares data the reset that only flags need: in a large array its wires would
    take more routing than any other net.
    """
    if cycles == 0:
        return value
    shape, bits = value.shape(), Value.cast(value)
    line = Signal(cycles * len(bits), name=name, reset_less=reset_less)
    m.d.sync += line.eq(Cat(bits, line))
    late = line[-len(bits) :]
    if isinstance(shape, Shape):
        return late.as_signed() if shape.signed else late
    return shape(late)


def one_hot(flag: Value, number: Value, count: int) -> Value:
    """Give a flag at the place that a number names, among so many."""
    return flag if count == 1 else Cat(flag & (number == n) for n in range(count))


def place(
    m: Module,
    signature: wiring.Signature,
    wires: dict[str, Value],
    module: str,
    component: wiring.Component | None = None,
) -> Instance | wiring.Component:
    """Connect a component's ports to wires or, without one, instantiate its Verilog module.

    Parameters
    ----------
    m : Module
        Gets the connections; the caller adds what is returned as a submodule.
    signature : Signature
        The component's.
    wires : dict
        A value for each port.
    module : str
        Name of the Verilog module.
    component : Component, optional
    """
    directions = {port: member.flow for port, member in signature.members.items()}
    if component is None:
        ports = {
            f"{'i' if directions[port] is In else 'o'}_{port}": wire for port, wire in wires.items()
        }
        return Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
    for port, wire in wires.items():
        inside = Value.cast(getattr(component, port))
        m.d.comb += inside.eq(wire) if directions[port] is In else wire.eq(inside)
    return component


def part(
    m: Module,
    name: str,
    signature: wiring.Signature,
    module: str,
    component: wiring.Component | None = None,
    reset: DomainRenamer | None = None,
) -> wiring.Component | wiring.PureInterface:
    """Add a submodule: a component or, without one, its Verilog module.

    Parameters
    ----------
    m : Module
    name : str
        Of the submodule.
    signature : Signature
        The component's.
    module : str
        Name of the Verilog module.
    component : Component, optional
    reset : DomainRenamer, optional
        Of :func:`own_reset`.

    Returns
    -------
    Component or interface
        Something with the component's ports.
    """
    renamed = reset or DomainRenamer("sync")
    if component is not None:
        m.submodules[name] = renamed(component)
        return component
    interface = signature.create(path=(name,))
    ports = {
        f"{'i' if member.flow is In else 'o'}_{'__'.join(map(str, path))}": Value.cast(value)
        for path, member, value in signature.flatten(interface)
    }
    inside = Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
    m.submodules[name] = renamed(inside)
    return interface


#: Cycles that the resets of :func:`flushed` outlast what caused them, at least: blocks behind them
#: may have two more of those registers, and all must be in their reset before the first leaves.
FLUSHED = 3


def flushed(m: Module, name: str, flush: Value, groups: int = 1) -> Signal:
    """Give resets for several groups of blocks, a cycle behind the domain's own or a signal.

    They come from registers, since nets of so many loads take long. All groups enter together; they
    leave ``FLUSHED`` cycles after what caused it at the earliest, one after the other, because
    equal registers would be made one.
    """
    resets = Signal(FLUSHED - 1 + groups, init=-1, name=name)
    m.d.sync += resets.eq(resets << 1)
    with m.If(flush):
        m.d.sync += resets.eq(-1)
    return resets[FLUSHED - 1 :]


def own_reset(m: Module, name: str, reset: Value) -> DomainRenamer:
    """Give what gives blocks a reset of their own.

    A clock domain: Verilog modules take their reset from one. Its name is none of a module around
    this one.
    """
    domain = ClockDomain(name, local=True)
    m.domains += domain
    m.d.comb += [domain.clk.eq(ClockSignal()), domain.rst.eq(reset)]
    return DomainRenamer(name)


def own_resets(m: Module, name: str, count: int) -> list[DomainRenamer]:
    """Give resets of their own for several groups of blocks, behind the domain's.

    One for all would be a net across the device. All enter it together; they leave it one after the
    other, because equal registers would be made one.
    """
    resets = Signal(count, init=-1)
    m.d.sync += resets.eq(resets << 1)
    return [own_reset(m, f"{name}_{n}", reset) for n, reset in enumerate(resets)]


def counted(m: Module, name: str, most: int, up: Value, down: Value, *, init: int = 0):
    """Give how many there are, and whether there are any, both in registers.

    The second one is known without a comparison behind the first, for what waits for it.

    Parameters
    ----------
    m : Module
    name : str
        Of the number; the flag is ``any_`` of it.
    most : int
    up, down : Value
        One more, one less in this cycle; no less if there are none.
    init : int, optional

    Returns
    -------
    tuple of Signal and Signal
    """
    number = Signal(range(most + 1), name=name, init=init)
    some = Signal(name=f"any_{name}", init=init > 0)
    m.d.sync += [
        number.eq(number + up - down),
        some.eq(up | number[1:].any() | (some & ~down)),
    ]
    return number, some


def most_interleave(m: Module, name: str, chunks: Value, entries: int, most: int) -> Signal:
    """Give the largest I, 0 … ``most``, whose I · K sums have room in some entries; a cycle late.

    It has few bits for a long way, where K is far from the tiles that it is compared with.
    """
    largest = Signal(range(most + 1), name=name, reset_less=True)
    m.d.sync += largest.eq(sum(chunks <= entries // n for n in range(1, most + 1)))
    return largest


def join(source, sink) -> list:
    """Give the assignments that let a stream flow into one whose words have as many bits."""
    return [
        Value.cast(sink.payload).eq(Value.cast(source.payload)),
        sink.valid.eq(source.valid),
        source.ready.eq(sink.ready),
    ]
