# SPDX-License-Identifier: Apache-2.0
"""Co-simulation: the generated Verilog in a simulator, driven and compared by Python.

==============  ===================================================================================
``cache``       where builds are kept; locks, folders that appear at once or not at all
``toolchain``   which simulators and compilers this machine has
``wrapper``     the Verilog around the engine that exchanges beats with Python in windows
``build``       from a configuration to an executable, once for each content
``protocol``    what that Verilog and the Python inside the simulator have agreed upon
``streams``     from a schedule to the beats of each stream
``jobs``        one layer command with its streams, as arrays in files
``bench``       the side that runs inside the simulator (cocotb)
``inside``      what that side shares with the core's bench
``process``     one simulator process that is fed many jobs
``runner``      layers and images in, compared integers, cycles and counters out
``mismatch``    where a result first went wrong
``core``        the same for the whole core: memory and registers instead of streams
``firmware``    the core with firmware in C instead of Python
==============  ===================================================================================
"""
