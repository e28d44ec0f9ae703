"""`python -m localcloud.kubernetes up|down|status|reset`."""

import sys

from localcloud.kubernetes import cluster
from localcloud.making import SetupError
from localcloud.processes import StartError


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code."""
    try:
        match arguments:
            case ["up"]:
                print(cluster.up())
            case ["down"]:
                cluster.down()
            case ["reset"]:
                cluster.reset()
            case ["status"]:
                parts = cluster.status()
                for name, pid in parts.items():
                    print(f"{'✔' if pid else '✗'} {name:24} {f'runs as {pid}' if pid else 'does not run'}")
                return 0 if all(parts.values()) else 1
            case _:
                print("usage: python -m localcloud.kubernetes up|down|status|reset", file=sys.stderr)
                return 2
    except (StartError, SetupError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
