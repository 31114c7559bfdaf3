"""Settings: what is wrong is named with its path, and every value knows where it comes from."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import xenintro
from xenintro.errors import UsageError
from xenintro.service.layers import Layers, setting
from xenintro.traps import parse_traps

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[domain]
name = "win10"
[traps]
cr3 = true
cr4 = { onchange = true, mask = "0x80" }
msr = ["LSTAR", 0xc0000080, { msr = "star", onchange = true }]
mem = [{ access = "w", gfns = "0x1000-0x1fff" }, { access = "rx", gfns = 0x104, step = true }]
guest_request = { async = true }
singlestep = { asked = true }
interrupt = { asked = true }
emul_unimplemented = true
int3 = false
[policy]
mode = "enforce"
"""

BAD = {
    "traps.mrs = true": ["traps.mrs: unknown, did you mean msr?"],
    "trap.cr3 = true": ["trap: unknown, did you mean traps?"],
    "storage.path = 'x'": ["storage: unknown", "here are domain, traps, policy, safety, capture, metrics"],
    "traps.mem = [{ acess = 'w', gfns = 1 }]": ["traps.mem[0].acess: unknown, did you mean access?"],
    "traps.cr4 = { on_change = true }": ["traps.cr4.on_change: unknown, did you mean onchange?"],
    "traps.cr3 = 'yes'": ["traps.cr3: expected bool | table, got str"],
    "traps.msr = [true]": ["traps.msr[0]: expected int | str | table, got bool"],
    "traps.msr = ['lsta']": ["traps.msr[0]: unknown MSR 'lsta'", "did you mean msr:lstar?"],
    "traps.mem = [{ access = 'q', gfns = 1 }]": ["traps.mem[0]: not a memory trap"],
    "traps.mem = [{ access = 'w', gfns = '1,cr3' }]": ["traps.mem[0]: not one trap"],
    "traps.mem = [{ access = 'w' }]": ["traps.mem[0]: table missing required field gfns"],
    "traps.msr = ['lstar', 'LSTAR']": ["traps: msr:lstar and msr:LSTAR overlap"],
    "traps.cr4 = { mask = -1 }": ["traps.cr4: not a number"],
    "policy.mode = 'off'": ["policy.mode: invalid value 'off'"],
    "policy.files = 'x.py'": ["policy.files: expected list, got str"],
    "safety.deadline = '1y'": ["safety.deadline: not a duration"],
    "safety.on_error = 'deny'": ["safety.on_error: invalid value 'deny'"],
    "domain = { name = '../x' }": ["domain.name: '../x' is no name"],
    "traps = 1": ["traps: expected table, got int"],
    "x": ["is not TOML"],
}


def write(directory: Path, text: str) -> Path:
    path = directory / "win10.toml"
    path.write_text(text)
    return path


def test_all_forms(tmp_path: Path) -> None:
    settings = Layers(write(tmp_path, GOOD)).load()

    expected = parse_traps(
        "cr3,cr4:onchange:mask=0x80,msr:LSTAR,msr:0xc0000080,msr:star:onchange,"
        "mem:w@0x1000-0x1fff,mem:rx@0x104:step,guest-request:async,singlestep:asked,interrupt:asked,"
        "emul-unimplemented"
    )
    assert settings.traps == expected
    assert settings.deadline == 0.25
    assert settings.config.policy.mode == "enforce"


@pytest.mark.parametrize("line", BAD)
def test_bad_settings_are_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, line if "domain" in line else f"domain.name = 'a'\n{line}\n")

    with pytest.raises(UsageError) as caught:
        Layers(path).load()

    message = "\n".join(caught.value.lines())
    for part in BAD[line]:
        assert part in message


def test_nothing_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="traps: nothing is asked for"):
        Layers(write(tmp_path, "domain.name = 'a'")).load()


def test_no_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"domain\.name is missing"):
        Layers(write(tmp_path, "traps.cr3 = true")).load()


def test_the_last_layer_wins(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    drop_ins = tmp_path / "win10.toml.d"
    drop_ins.mkdir()
    (drop_ins / "10-first.toml").write_text(
        "traps.cr3 = false\nsafety.deadline = '1s'\ntraps.cr4.onchange = false"
    )
    (drop_ins / "20-second.toml").write_text("safety.deadline = '2s'\ntraps.msr = ['efer']")
    layers = Layers(path, [("ENV", setting("safety.deadline=3s")), ("-o", setting("traps.cr4=true"))])

    settings = layers.load()

    assert settings.deadline == 3.0
    texts = [trap.text for trap in settings.traps]
    assert texts[:2] == ["cr4", "msr:efer"]
    assert settings.sources["safety.deadline"] == "ENV"
    assert settings.sources["traps.cr3"].endswith("10-first.toml")
    assert settings.sources["traps.msr"].endswith("20-second.toml")
    assert settings.sources["traps.cr4"] == "-o"
    assert settings.sources["domain.name"] == str(path)


def test_print_config(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)

    outcome = xenintro(
        *("serve", "--config", str(path), "--name", "other", "--print-config"),
        XENINTRO_SERVE_SETTINGS="policy.mode=observe",
    )

    assert outcome.code == 0, outcome.stderr
    origin = {line.split(" = ")[0]: line.rpartition("# ")[2] for line in outcome.stdout.splitlines()}
    assert origin["domain.name"] == "--name"
    assert origin["policy.mode"] == "XENINTRO_SERVE_SETTINGS"
    assert origin["traps.cr3"] == str(path)
    assert origin["safety.deadline"] == "default"
    printed = tmp_path / "printed.toml"
    printed.write_text(outcome.stdout)
    assert Layers(printed).load().traps == Layers(path).load().traps, "it is a configuration itself"
    assert tomllib.loads(outcome.stdout)["domain"]["name"] == "other"


def test_schema() -> None:
    outcome = xenintro("serve", "--config-schema")

    schema = json.loads(outcome.stdout)
    assert schema["$defs"]["Config"]["additionalProperties"] is False
    assert "msr" in schema["$defs"]["Traps"]["properties"]


@pytest.mark.parametrize(
    ("text", "code"),
    [("traps.mrs = 1", 2), (GOOD.replace("[policy]", "[policy]\nfiles = ['none.py']"), 8)],
)
def test_exit_codes_that_a_restart_does_not_help(tmp_path: Path, text: str, code: int) -> None:
    outcome = xenintro(
        *("serve", "--config", str(write(tmp_path, text)), "--xen", "sim"),
        XENINTRO_RUNTIME_DIR=str(tmp_path / "run"),
    )

    assert outcome.code == code, outcome.stderr
    assert outcome.error[0].startswith("error: ")
