"""A cluster by hand: `PYTHONPATH=tests python3 -m harness.kubernetes up`, and `down`. Tests make their own."""

from __future__ import annotations

import argparse
import sys

from harness import checkout, debian
from harness.keeper import Keeper, end_kept
from harness.kubernetes import addresses, programs
from harness.kubernetes import cluster as clusters
from harness.kubernetes.images import PACKAGES, Builder

MARK = f"cluster:{addresses.cache()}"


def up() -> None:
    clusters.refuse_unless_possible()
    logs = checkout.STATE / "logs" / "cluster-by-hand"
    with Keeper(logs, mark=MARK) as keeper:
        debian.install([*clusters.PACKAGES, *PACKAGES])
        programs.build(keeper, programs.CLUSTER)
        builder = Builder(keeper)
        cluster = clusters.Cluster(keeper).start(builder.pause().archive, patience=0)
        image = builder.python_with_sdk()
        cluster.import_image(image.archive)
        keeper.hand_over()
    print(f"export KUBECONFIG={cluster.kubeconfig} PATH={cluster.kubectl_program.parent}:$PATH")
    print(f"# This machine is {addresses.HOST} to pods. An image with Python and the SDK: {image.name}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="harness.kubernetes", description="A cluster by hand.")
    parser.add_argument("command", choices=["up", "down"])
    if parser.parse_args().command == "up":
        up()
    elif not end_kept(MARK):
        print("No cluster was started by hand.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
