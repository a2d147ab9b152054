"""What draws OpenAPI and Mermaid in the reader's browser: packages of npm without what they depend on.

python docs/site/fetch.py FOLDER

Each package's digest is pinned beside its version in renderers.json, and looked at before anything is unpacked.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

RENDERERS = Path(__file__).with_name("renderers.json")


def fetch(folder: Path) -> None:
    """Put the files that are wanted of each package into a folder of its name, without version.

    Raises:
        SystemExit: there is no npm, it could not fetch, or what came is not what is pinned.
    """
    if shutil.which("npm") is None:
        sys.exit("make: npm is needed for `make docs` (Debian: apt-get install npm)")
    for renderer in json.loads(RENDERERS.read_text(encoding="utf-8")):
        package = renderer["package"]
        with tempfile.TemporaryDirectory() as own:
            command = ["npm", "pack", "--silent", "--pack-destination", own, package]
            done = subprocess.run(command, cwd=own, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"make: npm could not fetch {package}: {done.stderr.strip() or done.stdout.strip()}")
            [archive] = Path(own).glob("*.tgz")
            digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if f"sha512-{digest}" != renderer["integrity"]:
                sys.exit(f"make: {package} has another digest than docs/site/renderers.json: sha512-{digest}")
            with tarfile.open(archive) as tar:
                wanted = [f"package/{pattern}" for pattern in renderer["files"]]
                members = [one for one in tar if any(fnmatch.fnmatchcase(one.name, pattern) for pattern in wanted)]
                if hasattr(tarfile, "data_filter"):  # not before Python 3.11.4
                    tar.extraction_filter = tarfile.data_filter
                tar.extractall(own, members)
            place = folder / package.rpartition("@")[0]
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(Path(own, "package"), place)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
