#!/usr/bin/env python3
"""Runs the Autobahn cases against the WebSocket layer, with the echo example of the `wire` crate.

Usage: websocket.py [all | short]. The runner, kosoku, is third-party software. It is installed into
a virtual environment in a folder that git ignores.

Invariant: every case of the set has a verdict, and the run fails on any verdict not in GOOD.
"""

import asyncio
import collections
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "tests" / ".cache" / "kosoku"
PACKAGES = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
RUNNER = "kosoku==0.1.0"

# Sets of cases by name: patterns, and the number of cases.
SETS = {
    "all": (["*"], 517),
    "short": (
        [*(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10))]
        + ["9.1.1", "9.1.4", "9.2.4", "9.3.4", "9.4.5", "9.5.4", "9.6.4", "9.7.1", "9.8.1"]
        + ["12.1.1", "12.1.4", "12.2.4", "12.3.11", "13.1.4", "13.2.4", "13.3.4", "13.4.4", "13.5.11", "13.7.4"],
        266,
    ),
}
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
BUILD = ["cargo", "build", "--locked", "--release", "--package", "wire", "--example", "echo"]


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "all"
    if name not in SETS:
        sys.exit(f'"{name}" is not a set of cases; choose one of: {", ".join(SETS)}')
    install()
    patterns, count = SETS[name]
    subprocess.run(BUILD, cwd=ROOT, check=True)
    with subprocess.Popen([echo_server(), "127.0.0.1:0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip() or sys.exit("the echo server did not start")
            results = asyncio.run(run(address, patterns))
        finally:
            server.kill()
    code = judge(results, count)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of the runner can abort the process while the interpreter shuts down.
    os._exit(code)


def install():
    """Installs the runner into its virtual environment if necessary, and makes it importable."""
    if not (PACKAGES / "kosoku").exists():
        pip = [VENV / "bin" / "python3", "-m", "pip"]
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
            subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", RUNNER], check=True)
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"cannot install {RUNNER} ({error}): it needs Python 3.10 or newer with its venv module "
                "(apt-get install python3 python3-venv) and access to PyPI"
            )
    sys.path.insert(0, str(PACKAGES))


def echo_server():
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return Path(target) / "release" / "examples" / "echo"


async def run(address, patterns):
    """Runs the cases and returns their results."""
    import kosoku

    take_uncompressed_echoes()
    try:
        return await kosoku.run_fuzzingclient(address, patterns, concurrency=os.cpu_count())
    except kosoku.FailureError as failure:
        return failure.results


def take_uncompressed_echoes():
    """Makes the cases of groups 12 and 13 accept uncompressed messages (RFC 7692, section 6).

    The runner passes them as a string of characters 0 to 255, which the cases cannot hash."""
    from kosoku._caseindex import initialize_shims

    initialize_shims()
    import case12_x_x

    def accepting(case_on_message):
        def on_message(self, message, binary):
            case_on_message(self, message.encode("latin-1") if isinstance(message, str) else message, binary)

        return on_message

    for case in case12_x_x.Case12_X_X + case12_x_x.Case13_X_X:
        case.onMessage = accepting(case.onMessage)


def judge(results, count):
    """Prints the results; returns the exit code."""
    groups = collections.defaultdict(collections.Counter)
    bad = []
    for result in results:
        verdict, close = result.behavior.value, result.behavior_close.value
        is_good = verdict in GOOD and close in GOOD
        groups[int(result.case_id.split(".")[0])][verdict if is_good else "bad"] += 1
        if not is_good:
            bad.append(f"case {result.case_id}: {verdict} ({result.result}), close {close} ({result.result_close})")
    columns = ["OK", "NON-STRICT", "INFORMATIONAL", "bad"]
    print("group" + "".join(f"{column:>15}" for column in columns))
    for group, verdicts in sorted(groups.items()):
        print(f"{group:>5}" + "".join(f"{verdicts[column]:>15}" for column in columns))
    print(f"total: {len(results)} of {count} cases, {len(bad)} bad")
    for line in bad:
        print(line, file=sys.stderr)
    cases = {result.case_id for result in results}
    if len(cases) != count:
        print(f"{len(cases)} cases have a verdict, expected {count}", file=sys.stderr)
    return 1 if bad or len(cases) != count else 0


if __name__ == "__main__":
    main()
