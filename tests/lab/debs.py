"""Debian packages of any suite, downloaded with a private apt and unpacked, never installed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab import cache

#: A suite's archive and security archive, told apart by the label that apt has for the host's own.
_LABELS = {"Debian": "{suite}", "Debian-Security": "{suite}-security"}

_CONF = """\
APT::Architecture "amd64"; APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false"; APT::Sandbox::User "root"; Acquire::Languages "none";
Dir::State "{dir}"; Dir::State::status "{dir}/status"; Dir::State::lists "{dir}/lists";
Dir::Cache "{dir}"; Dir::Cache::archives "{dir}/archives";
Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "{dir}/sources";
"""


def _mirrors() -> dict[str, str]:
    """URI by label of the archives that the host's own apt is set up for."""
    rows = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages", "--format", "$(LABEL) $(REPO_URI)"],
        capture_output=True, text=True, check=False,
    ).stdout.split("\n")  # fmt: skip
    found = dict(row.split(maxsplit=1) for row in rows if row.count(" ") == 1)
    if "Debian" not in found:
        raise cache.LabUnavailable("the host's apt knows no Debian archive (run: apt-get update)")
    return found


def _apt(suite: str) -> tuple[dict[str, str], Path]:
    """The environment and directory of a private apt that sees only this suite."""
    home = cache.root() / f"apt-{suite}"
    for part in ("lists/partial", "archives/partial", "sources", "src"):
        (home / part).mkdir(parents=True, exist_ok=True)
    (home / "status").touch()
    (home / "apt.conf").write_text(_CONF.format(dir=home))
    env = {"APT_CONFIG": str(home / "apt.conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    mirrors = _mirrors()
    (home / "sources" / "suite.sources").write_text(
        "\n".join(
            f"Types: deb deb-src\nURIs: {mirrors[label]}\nSuites: {name.format(suite=suite)}\n"
            "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            for label, name in _LABELS.items()
            if label in mirrors
        )
    )
    if not any((home / "lists").glob("*Packages*")):
        cache.run(["apt-get", "-q", "update"], home / "log", env=env)
    return env, home


def download(suite: str, packages: Sequence[str]) -> list[Path]:
    """These packages of a suite with all they depend on."""
    with cache.lock(f"apt-{suite}"):
        env, home = _apt(suite)
        plan = [*"apt-get -q -s install".split(), *packages]
        listed = subprocess.run(plan, env=env, capture_output=True, text=True, check=False)
        if listed.returncode:
            raise cache.LabUnavailable(f"{suite} cannot give {packages}: {listed.stderr.strip()}")
        cache.run([*"apt-get -q -y -d install".split(), *packages], home / "log", env=env)
    rows = re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", listed.stdout, re.MULTILINE)
    return [home / "archives" / f"{'_'.join(row).replace(':', '%3a')}.deb" for row in rows]


def depends(suite: str, package: str, prefix: str) -> str:
    """The package behind a metapackage: its first dependency with this prefix."""
    with cache.lock(f"apt-{suite}"):
        env, _ = _apt(suite)
        text = subprocess.run(
            ["apt-cache", "depends", package], env=env, capture_output=True, text=True, check=True
        ).stdout
    names = [row.split()[-1] for row in text.splitlines() if "Depends:" in row]
    return next(name for name in names if name.startswith(prefix))


def source(suite: str, package: str, pattern: str) -> Path:
    """The upstream tarball of a source package."""
    with cache.lock(f"apt-{suite}"):
        env, home = _apt(suite)
        if not list((home / "src").glob(pattern)):
            # A mirror may lack the .dsc; apt has then still fetched and verified the tarball.
            subprocess.run(
                ["apt-get", "-q", "source", "--download-only", package],
                cwd=home / "src", env=env, capture_output=True, check=False,
            )  # fmt: skip
    tarballs = sorted((home / "src").glob(pattern))
    if not tarballs:
        raise cache.LabUnavailable(f"no source of {package} in {suite}")
    return tarballs[-1]


def unpack(debs: Iterable[Path], into: Path) -> None:
    """Unpack in order (later wins) into a tree whose /bin, /sbin and /lib point into /usr."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (into / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (into / name).is_symlink():
            (into / name).symlink_to(f"usr/{name}")
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as data:
            extract = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(into)]
            if subprocess.run(extract, stdin=data.stdout, check=False).returncode or data.wait():
                raise cache.LabUnavailable(f"cannot unpack {deb}")
