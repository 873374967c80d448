"""Attack millpond and print test x count x failures.

    python -m benchmarks.lab.attack kill|flip|fuzz|serve --seed S --seconds N [--count N]

Ends with 1 where anything failed. The same seed makes the same attack; how far it comes depends on
``--seconds``.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.lab.attack.common import Attack

COUNTS = {"kill": 28, "flip": 40, "fuzz": 700, "serve": 64}


def main() -> int:
    """Run the attack that was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lab.attack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=COUNTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120.0, help="no test begins after these")
    parser.add_argument("--count", type=int, help=f"tests, or clients of serve (default: {COUNTS})")
    asked = parser.parse_args()
    attack = Attack(asked.seed, asked.count or COUNTS[asked.kind], asked.seconds)
    if asked.kind == "kill":
        from benchmarks.lab.attack.kill import attack_by_kills as run
    elif asked.kind == "flip":
        from benchmarks.lab.attack.flip import attack_by_damage as run
    elif asked.kind == "fuzz":
        from benchmarks.lab.attack.fuzz import attack_by_input as run
    else:
        from benchmarks.lab.attack.serve import attack_by_load as run
    tally = run(attack)
    seconds = time.monotonic() - attack.started
    print(f"{asked.kind}, seed {attack.seed}, {seconds:.0f} s\n\n{tally.show()}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
