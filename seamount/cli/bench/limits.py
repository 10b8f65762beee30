"""`seamount bench limits`: what this machine can do at most."""

from seamount.cli.options import JsonOption
from seamount.cli.output import print_json


def limits(json: JsonOption = False) -> None:
    """The instructions that the CPU kernels use here, and the measured limits of memory and arithmetic."""
    # Imported here because numba and torch cost seconds that other verbs' --help must not pay.
    from dataclasses import asdict

    from seamount.kernels.cpu.limits import limits as measure
    from seamount.kernels.cpu.target import available_paths

    found = measure()
    if json:
        print_json(asdict(found) | {"available": available_paths()})
        return
    print(f"kernels   {found.path} of {', '.join(available_paths())}; {found.threads} threads")
    print(f"memory    {found.read / 1e9:8.1f} GB/s read")
    for name in ("int8", "bfloat16", "float32"):
        print(f"{name:<9} {getattr(found, name) / 1e12:8.2f} Tera-operations/s from registers")
