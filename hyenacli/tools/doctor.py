"""`hyena doctor`: what this machine has, whether it computes right, and how fast."""

import json
import math
from collections.abc import Iterator, Sequence

import torch
import typer

from hyenacli.console import log
from hyenacli.devices import available_devices, resolve_device, set_threads
from hyenacli.terminal_tables import print_table
from hyenacli.tools.machine import Row, optional, processors, system
from hyenacli.tools.settings import DoctorSettings
from hyenacli.tools.speed import measure_speed
from hyenadna.checks.device import DeviceCheck, check_definition, self_test

_DTYPES = ("float32", "bfloat16")
Section = Row | list[Row] | str


def run(settings: DoctorSettings) -> None:
    """Print the findings as they come, or all of them as JSON; the exit code is 1 if a number is wrong.

    Tables follow each other with a blank line between; the last line says which precision to use where.

    Raises:
        UserError: this machine does not have the device asked for.
    """
    wanted = [settings.device] if settings.device else available_devices()
    devices = [resolve_device(name) for name in wanted]
    set_threads(settings.threads)
    checks: list[DeviceCheck] = []
    sections = _sections(devices, checks, timed=not settings.no_speed)
    if settings.json:
        typer.echo(json.dumps(dict(sections), indent=2))
    else:
        for _, section in sections:
            _show(section)
    if any(check.verdict == "FAIL" for check in checks):
        raise typer.Exit(1)


def _sections(
    devices: Sequence[torch.device], checks: list[DeviceCheck], *, timed: bool
) -> Iterator[tuple[str, Section]]:
    """The parts of the report by name; `checks` is filled on the way."""
    yield "system", system()
    yield "devices", processors(devices)
    yield "optional", optional()
    log.info("checking the numbers of the definition on cpu")
    checks.append(check_definition())
    for device in devices:
        log.info("checking the numbers on %s", device)
        checks.extend(self_test(device))
    for check in checks:
        if check.problem:
            log.warning("%s, %s, %s: %s", check.device, check.dtype, check.check, check.problem)
    yield "checks", [_check_row(check) for check in checks]
    if timed:
        yield "speed", [row for device in devices for row in _speed_rows(device, checks)]
    yield "advice", "Use " + "; ".join(_advice(str(device), checks) for device in devices) + "."


def _check_row(check: DeviceCheck) -> Row:
    return {
        "result": check.verdict,
        "device": check.device,
        "dtype": check.dtype,
        "check": check.check,
        "error": check.error if math.isfinite(check.error) else None,
        "tolerance": check.tolerance,
        "limit": check.limit,
    }


def _speed_rows(device: torch.device, checks: Sequence[DeviceCheck]) -> Iterator[Row]:
    # bfloat16 on a CPU without instructions for it takes many times as long: nobody would use it.
    timed = [dtype for dtype in _trusted(str(device), checks) if dtype == "float32" or device.type != "cpu"]
    for dtype in timed:
        log.info("timing %s on %s", dtype, device)
        yield from (vars(speed) for speed in measure_speed(device, dtype))


def _trusted(device: str, checks: Sequence[DeviceCheck]) -> dict[str, list[DeviceCheck]]:
    """The precisions a run can be trusted in, best first, with their checks.

    Where float64 or the definition is wrong, a mistake too small for the bounds of the others is in all.
    """
    here = [check for check in checks if check.device == device or check.check == "definition"]
    wrong = {check.dtype for check in here if check.verdict == "FAIL"}
    right = [dtype for dtype in _DTYPES if not wrong & {dtype, "float64"}]
    return {dtype: [check for check in here if check.dtype == dtype] for dtype in right}


def _advice(device: str, checks: Sequence[DeviceCheck]) -> str:
    """Which precision to use on a device."""
    trusted = _trusted(device, checks)
    if not trusted:
        return f"nothing on {device}: its numbers are wrong"
    first, *others = trusted
    also = [f"; {dtype} {_errors(trusted[dtype])}" for dtype in others]
    return f"{first} on {device} (errors {_errors(trusted[first])}{''.join(also)})"


def _errors(checks: Sequence[DeviceCheck]) -> str:
    coarse = any(check.verdict == "WARN" for check in checks)
    return f"up to {max(check.error for check in checks):.0e}" + (", coarser than usual" if coarse else "")


def _show(section: Section) -> None:
    """One part of the report, and a blank line to tell it from the next."""
    if isinstance(section, str):
        typer.echo(section)
        return
    rows = (
        [{"field": key, "value": value} for key, value in section.items()]
        if isinstance(section, dict)
        else section
    )
    if rows:
        print_table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
        typer.echo()


def _cell(value: object) -> object:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else value
