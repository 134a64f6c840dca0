# SPDX-License-Identifier: Apache-2.0
"""A network as a program of the core: descriptors, data and maps in one window of memory.

============  =====================================================================================
``layout``    where the channels of a pixel lie
``maps``      where a feature map lies, and its bytes
``loops``     the runs of beats in which a pass reads or writes a map
``places``    which map lies where: concatenations in place, flattening as a view
``filters``   which filters a pass computes, and their weights as the engine reads them
``windows``   which part of a map a pass reads: line buffer, strips, long vectors
``pooling``   what the pooler is told
``plan``      the passes of each node, before anything has an address
``passes``    one pass: its descriptor, and the beats that it moves
``kept``      which maps stay in the core's map memory, and where
``memory``    the areas of the window
``compiler``  from a network to a program
``program``   the result
``files``     the result as files for software that has no Python
============  =====================================================================================
"""
