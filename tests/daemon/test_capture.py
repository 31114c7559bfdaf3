"""What a service records: rotated, kept, compressed, over attachments and runs; trouble stops only that."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.cli.runner import xenintro
from tests.daemon.daemon import CONFIG, daemon
from xenintro.capture import Capture

if TYPE_CHECKING:
    from pathlib import Path

    from xenintro.answered import Answered


def config(path: Path, **keys: object) -> str:
    lines = "".join(f"{key} = {value!r}\n" for key, value in {"path": str(path), **keys}.items())
    return f"{CONFIG}[capture]\n{lines}"


def read(path: Path) -> list[Answered]:
    with Capture(path) as capture:
        records = list(capture)
        assert capture.damage is None
        assert capture.totals is not None
        assert capture.info.domain == "tiny"
    return records


def test_everything_is_in_the_files(tmp_path: Path) -> None:
    there = tmp_path / "captures"
    with daemon(tmp_path, config(there)) as service:
        service.ready()
        status = service.eventually(lambda status: status["events"] > 100)
        assert status["capture"].startswith(str(there / "tiny-"))
        assert status["capture_bytes"] > 50_000
        assert status["capture_error"] is None
        rotated = service.ask("rotate")
        assert rotated["capture"] != status["capture"]
        service.process.send_signal(signal.SIGUSR1)
        service.eventually(lambda status: status["capture"] != rotated["capture"])
        assert service.stop().code == 0
        report = service.host.simulation.report()
    files = sorted(there.iterdir())
    assert len(files) == 3
    # What the other process has not compressed by the end of the service is there as it was.
    assert all(path.name.endswith((".pcapng", ".pcapng.zst")) for path in files)
    assert sum(len(read(path)) for path in files) == report["answered"] == report["events"]
    assert there.stat().st_mode & 0o777 == 0o700


def test_the_newest_are_kept_over_runs(tmp_path: Path) -> None:
    there = tmp_path / "captures"
    for turn in ("first", "second"):
        (tmp_path / turn).mkdir()
        with daemon(tmp_path / turn, config(there / "t.pcapng.gz", rotate="200kB", keep=3)) as service:
            service.ready()
            service.eventually(lambda status: status["capture_bytes"] > 1_000_000)
            service.eventually(lambda _: len(list(there.glob("*Z*.pcapng*"))) in (3, 4))
            assert service.stop().code == 0


def test_a_reload_changes_where(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        assert service.ctl("rotate").code == 2
        service.config.write_text(config(tmp_path / "one.pcapng"))
        service.reload()
        first = service.eventually(lambda status: status["capture"] is not None)["capture"]
        service.config.write_text(config(tmp_path / "two.pcapng"))
        service.reload()
        service.eventually(lambda status: status["capture"] not in (None, first))
        service.config.write_text(config(tmp_path / "two.pcapng", rotate="often"))
        service.reload()
        assert "capture.rotate" in service.ask("status")["reload_error"]
        service.config.write_text(CONFIG)
        service.reload()
        assert service.ask("status")["capture"] is None
        assert service.stop().code == 0
        service.assert_runs()
    for stem in ("one", "two"):
        (path,) = tmp_path.glob(f"{stem}-*.pcapng")
        assert read(path)


def test_a_file_that_is_removed_stops_only_the_recording(tmp_path: Path) -> None:
    with daemon(tmp_path, config(tmp_path / "full.pcapng")) as service:
        service.ready()
        first = service.eventually(lambda status: status["events"] > 100)["capture"]
        (tmp_path / first).unlink()
        status = service.eventually(lambda status: status["capture_error"] is not None)
        assert "removed while" in status["capture_error"]
        assert status["state"] == "watching"
        before = status["events"]
        service.eventually(lambda status: status["events"] > before + 100)
        assert service.ask("rotate")["capture_error"] is None
        assert service.stop().code == 0
        service.assert_runs()
    (path,) = tmp_path.glob("full-*.pcapng")
    assert read(path)


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = tmp_path / "tiny.toml"
    settings.write_text(config(tmp_path / "file" / "captures"))
    outcome = xenintro("serve", "--config", str(settings), "--xen", "sim")
    assert outcome.code == 2
    assert outcome.error[0].startswith("error: capture.path: cannot write")
