# SPDX-License-Identifier: Apache-2.0
"""Small pieces of logic that several blocks use."""

from amaranth import ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In


def delayed(m: Module, value, cycles: int, name: str, *, reset_less: bool = False):
    """Give a value some cycles later, through registers ``name_0`` and so on.

    ``reset_less`` spares data the reset that only flags need: in a large array its wires would
    take more routing than any other net.
    """
    for n in range(cycles):
        stage = Signal(value.shape(), name=f"{name}_{n}", reset_less=reset_less)
        m.d.sync += stage.eq(value)
        value = stage
    return value


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
