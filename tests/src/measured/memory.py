"""Fills memory with one kind of contents, then counts every few milliseconds in the file `beat`: `memory.py KIND MB`.

When there is a file `change` it first changes one part in twenty: the first ones, or every twentieth if it says `scattered`.
Every byte of those becomes another one, and the whole is as easily compressed as before.
"""

import os
import sys
import time

import numpy

MB = 1 << 20
kind, size = sys.argv[1], int(sys.argv[2])
random = numpy.random.default_rng()


def noise():
    return [numpy.frombuffer(random.bytes(MB), "u1").copy() for _ in range(size)]


def half():
    """Every second megabyte is of one value."""
    parts = noise()
    for part in parts[::2]:
        part[:] = 0
    return parts


def sines():
    count = MB // 8
    return [numpy.sin(numpy.arange(k * count, (k + 1) * count) * 0.001) for k in range(size)]


def particles():
    """Positions, velocities of which few are not zero yet, a list of neighbours, a histogram, a smooth field."""
    parts = []
    count = MB // 16
    for k in range(size * 2 // 7):
        parts.append(random.random(count))
        parts.append(numpy.where(random.random(count) < 0.1, random.random(count), 0.0))
        parts.append(numpy.arange(2 * count) // 8 + random.integers(0, 64, 2 * count) + k * count)
        parts.append(random.poisson(3, 4 * count).astype("i4"))
        parts.append(numpy.sin(numpy.arange(k * count, (k + 1) * count) * 0.001))
    return parts


def objects():
    """What a script has that reads records: dictionaries, strings, numbers, lists."""
    return [
        {
            "name": f"record {number}",
            "values": [number * k * 0.1 for k in range(40)],
            "tags": {f"tag{number * k % 1000}": number + k for k in range(6)},
        }
        for number in range(size * MB // 2600)
    ]


kept = globals()[kind]()
beat = os.open("beat", os.O_RDWR | os.O_CREAT, 0o644)
for count in range(1 << 62):
    if os.path.exists("change"):
        scattered = open("change").read() == "scattered"
        for part in kept[::20] if scattered else kept[: len(kept) // 20]:
            part.view("u1")[:] ^= 1
        os.remove("change")
    os.pwrite(beat, b"%012d" % count, 0)
    time.sleep(0.004)
