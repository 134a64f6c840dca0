# SPDX-License-Identifier: Apache-2.0
"""Co-simulation of the whole core: a memory image and register writes in, a memory image out.

=============  ====================================================================================
``memory.v``   the reference memory: AXI4 ports with exact timing, stalls, errors, and a watch
``driver.v``   writes and reads registers and waits for the interrupt
``protocol``   the words through which Python speaks with both
``wrapper``    the Verilog around the core
``build``      from a configuration to an executable
``jobs``       one run: memory, registers, timing, what disturbs it; and what came out
``bench``      the side that runs inside the simulator (cocotb)
``process``    one simulator process that is fed many jobs
=============  ====================================================================================
"""
