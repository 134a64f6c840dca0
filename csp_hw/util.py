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

    Returns
    -------
    Component or interface
        Something with the component's ports.
    """
    if component is not None:
        m.submodules[name] = component
        return component
    interface = signature.create(path=(name,))
    ports = {
        f"{'i' if member.flow is In else 'o'}_{'__'.join(map(str, path))}": Value.cast(value)
        for path, member, value in signature.flatten(interface)
    }
    m.submodules[name] = Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
    return interface


def flushed(m: Module, name: str, flush: Value, *, at_once: bool = False) -> DomainRenamer:
    """Give what has blocks reset by a signal, too; both resets come a cycle late.

    They have a register, since nets of so many loads take long. Other blocks may leave their reset
    earlier or later: ``flush`` must last until all are in it. With ``at_once`` the domain's own
    reset comes at once, as ports of AXI need it: nothing is valid there during a reset.
    """
    reset = Signal(init=1, name=f"{name}_reset")
    m.d.sync += reset.eq(flush)
    return own_reset(m, name, (ResetSignal() | reset) if at_once else reset)


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


def join(source, sink) -> list:
    """Give the assignments that let a stream flow into one whose words have as many bits."""
    return [
        Value.cast(sink.payload).eq(Value.cast(source.payload)),
        sink.valid.eq(source.valid),
        source.ready.eq(sink.ready),
    ]
