"""Renders a piece of the Mandelbrot set as tiles, one Globus Compute task each, and marks each with its slot.

    python examples/mosaic.py [--output FILE] [--endpoint ID]

Nothing here knows of Waypost: it is a program for `globus_compute_sdk.Executor` like any other. The endpoint is named
by --endpoint or the environment variable WAYPOST_ENDPOINT_ID. Exit status 0 means that every tile came, and that a
sample of pixels, computed again here, is the same.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import random
import sys
import time
from pathlib import Path

from picture import Picture, read_png

TILE, COLUMNS, ROWS = 64, 12, 8
WIDTH, HEIGHT = TILE * COLUMNS, TILE * ROWS
LEGEND = 40
CENTRE, ACROSS = complex(-0.5622, 0.6428), 0.0108
ITERATIONS = 300

INK, PAPER = (226, 230, 238), (14, 17, 27)
SLOTS = [
    (64, 224, 208),
    (255, 99, 164),
    (255, 214, 10),
    (124, 220, 90),
    (176, 132, 255),
    (255, 138, 60),
    (90, 170, 255),
    (230, 230, 230),
]


def render(left: int, top: int, width: int, height: int, corner: complex, step: float, iterations: int) -> dict:
    """The pixels of one tile. It runs on the endpoint, so it brings its imports along."""
    import cmath
    import math
    import os

    # The set is lit from the upper left: the derivative gives the slope of the surface that the escape time makes.
    light = cmath.exp(-0.75j * math.pi)
    pixels = bytearray()
    for y in range(top, top + height):
        for x in range(left, left + width):
            c = corner + complex(x * step, -y * step)
            z = slope = 0j
            count = 0
            while count < iterations and abs(z) <= 100.0:
                slope = 2 * z * slope + 1
                z = z * z + c
                count += 1
            if abs(z) <= 100.0:
                pixels += b"\x08\x0a\x14"
                continue
            smooth = count + 1 - math.log2(math.log(abs(z)))
            normal = z / slope
            normal /= abs(normal)
            shade = 0.25 + 0.85 * max(0.0, ((normal * light).real + 1.4) / 2.4)
            for phase in (0.0, 0.55, 1.1):
                value = 0.56 + 0.44 * math.cos(0.132 * smooth + 3.4 + phase)
                pixels.append(min(255, int(255 * value * shade)))
    return {"left": left, "top": top, "pixels": bytes(pixels), "slot": f"{os.uname().nodename}/{os.getpid()}"}


def place() -> tuple[complex, float]:
    """The complex number of the upper left pixel, and how far it is to the next."""
    step = ACROSS / WIDTH
    return CENTRE + complex(-ACROSS / 2, step * HEIGHT / 2), step


def compute(endpoint: str, show) -> tuple[list[dict], float]:
    """Every tile, and the seconds from the first submit to the last result."""
    from globus_compute_sdk import Executor

    corner, step = place()
    with Executor(endpoint_id=endpoint) as executor:
        start = time.monotonic()
        futures = [
            executor.submit(render, column * TILE, row * TILE, TILE, TILE, corner, step, ITERATIONS)
            for row in range(ROWS)
            for column in range(COLUMNS)
        ]
        tiles = []
        for future in concurrent.futures.as_completed(futures, timeout=300):
            tiles.append(future.result())
            show(len(tiles), len(futures))
        return tiles, time.monotonic() - start


def check(tiles: list[dict], samples: int = 40) -> None:
    """AssertionError unless each tile is there once, and pixels taken at random are what is computed here."""
    wanted = {(column * TILE, row * TILE) for row in range(ROWS) for column in range(COLUMNS)}
    came = [(tile["left"], tile["top"]) for tile in tiles]
    assert len(came) == len(wanted) and set(came) == wanted, "not every tile came once"
    corner, step = place()
    for tile in tiles:
        assert len(tile["pixels"]) == TILE * TILE * 3, f"the tile at {tile['left']}, {tile['top']} is not whole"
    for tile in random.sample(tiles, samples):
        x, y = random.randrange(TILE), random.randrange(TILE)
        again = render(tile["left"] + x, tile["top"] + y, 1, 1, corner, step, ITERATIONS)["pixels"]
        start = (y * TILE + x) * 3
        found = tile["pixels"][start : start + 3]
        # Another machine's mathematics library may round the last bit in another way.
        assert all(abs(a - b) <= 1 for a, b in zip(found, again, strict=True)), (
            f"the pixel {tile['left'] + x}, {tile['top'] + y} is {tuple(found)} and should be {tuple(again)}"
        )


def draw(tiles: list[dict], seconds: float) -> Picture:
    """The whole picture, with each tile's slot and a legend."""
    slots = list(dict.fromkeys(tile["slot"] for tile in tiles))
    picture = Picture(WIDTH, HEIGHT + LEGEND)
    picture.fill(0, HEIGHT, WIDTH, LEGEND, PAPER)
    for tile in tiles:
        left, top, number = tile["left"], tile["top"], slots.index(tile["slot"])
        colour = SLOTS[number % len(SLOTS)]
        picture.paste(left, top, TILE, tile["pixels"])
        picture.outline(left, top, TILE, TILE, tuple(part * 2 // 3 for part in colour))
        label = str(number + 1)
        picture.fill(left, top + TILE - 11, 6 * len(label) + 3, 11, colour)
        picture.write(left + 2, top + TILE - 9, label, PAPER)
    at = picture.write(14, HEIGHT + 13, "Waypost", INK, 2) + 14
    summary = f"{len(tiles)} tasks  {seconds:.1f} s"
    end = WIDTH - 14 - 6 * len(summary)
    picture.write(end, HEIGHT + 17, summary, INK)
    for number, slot in enumerate(slots):
        text = f"slot {number + 1}  {sum(tile['slot'] == slot for tile in tiles)} tiles"
        if at + 16 + 6 * len(text) > end - 10:
            break
        picture.fill(at, HEIGHT + 15, 11, 11, SLOTS[number % len(SLOTS)])
        at = picture.write(at + 16, HEIGHT + 17, text, INK) + 16
    return picture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("mosaic.png"), help="where the picture goes")
    parser.add_argument("--endpoint", default=os.environ.get("WAYPOST_ENDPOINT_ID"), help="id of the endpoint")
    arguments = parser.parse_args()
    if not arguments.endpoint:
        parser.error("name an endpoint by --endpoint or WAYPOST_ENDPOINT_ID")
    live = sys.stdout.isatty()

    def show(done: int, of: int) -> None:
        if live:
            print(f"\r    {'#' * (done * 40 // of):<40} {done}/{of} tiles", end="", flush=True)

    tiles, seconds = compute(arguments.endpoint, show)
    if live:
        print()
    check(tiles)
    picture = draw(tiles, seconds)
    arguments.output.write_bytes(picture.png())
    assert read_png(arguments.output.read_bytes()) == (picture.width, picture.height, bytes(picture.pixels))
    slots = len({tile["slot"] for tile in tiles})
    rate = len(tiles) / seconds
    print(f"{len(tiles)} tasks in {seconds:.1f} s on {slots} slots: {rate:.0f} tasks per second. The picture is right.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
