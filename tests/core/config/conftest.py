"""Fixtures for the tests of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.config.settings import Settings, load_settings
from core.errors import SettingsError
from gateway import CHECKS
from tests.core.config.settings_files import write


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def run(text: str | bytes = "", **environ: str) -> Settings:
        return load_settings(write(tmp_path, text), environ)[0]

    return run


@pytest.fixture
def warnings_of(tmp_path: Path) -> Any:
    def run(text: str = "", **environ: str) -> list[str]:
        return load_settings(write(tmp_path, text), environ)[1]

    return run


@pytest.fixture
def refusal(tmp_path: Path) -> Any:
    def run(text: str | bytes = "", **environ: str) -> SettingsError:
        path = write(tmp_path, text)
        with pytest.raises(SettingsError) as caught:
            load_settings(path, environ, CHECKS)
        assert len(str(caught.value).splitlines()) == 1
        if caught.value.source.startswith(path):
            caught.value.source = "FILE" + caught.value.source.removeprefix(path)
        return caught.value

    return run
