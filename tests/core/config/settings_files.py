"""The file of settings that a test writes, and values for what needs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECRET = "hunter2-hunter2-hunter2-hunter2-"
PEM = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3u9JaBwb6AYk3vxwaXYy+ZNL98Ui\n"
    "U0+F0HvoNIMDUpSEw1LUarnUEjy1svji3rsjLOsLQBOtkcRkFIsrvqnPkg==\n"
    "-----END PUBLIC KEY-----\n"
)

Values = dict[str, Any]


def write(folder: Path, text: str | bytes) -> str:
    file = folder / "gateway.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)
