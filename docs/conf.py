"""Sphinx: the site that `make docs` makes of the same Markdown that is read in the repository.

The source folder is the whole repository, so that every link between pages, and from a page to a file, is as it stands.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from docs.site import messages

ROOT = Path(__file__).resolve().parent.parent

project = "mExchange gateway"
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
root_doc = "README"
source_suffix = {".md": "markdown", ".json": "markdown"}
include_patterns = ["*.md", "docs/*.md", "docs/asyncapi.json", "bench/*.md", "clients/**/*.md", "examples/*.md"]
exclude_patterns = [".*", "**/node_modules", "**/build"]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
myst_fence_as_directive = ["mermaid"]
# An example may be an excerpt, with "..." in it.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = project
html_favicon = "../console/favicon.svg"
html_copy_source = False
templates_path = ["site"]
# Fetched by site/fetch.py: the reader's browser asks no other host for anything.
html_static_path = ["../.docs/renderers"]
mermaid_use_local = "mermaid/dist/mermaid.esm.min.mjs"
mermaid_height = "auto"
html_additional_pages = {"docs/openapi": "openapi.html", "docs/openapi-admin": "openapi.html"}

# What a page on GitHub has no need of: the order of the pages.
CONTENTS = """

```{toctree}
:hidden:
:caption: Use it

docs/apis
docs/asyncapi
docs/protocol
clients/python/README
clients/js/README
clients/ccxt/README
examples/README
docs/contract
```

```{toctree}
:hidden:
:caption: Run it

docs/operators
docs/deployment
docs/scale
docs/mexchange
bench/RESULTS
```

```{toctree}
:hidden:
:caption: Change it

docs/architecture
docs/decisions
docs/clients
clients/conformance/README
CONTRIBUTING
CHANGELOG
```
"""
# The theme has classes for what GitHub has <picture> for.
PICTURE = re.compile(r'<picture>\s*<source [^>]*srcset="([^"]+)">\s*<img alt="([^"]+)" src="([^"]+)">\s*</picture>')
DOCUMENT_LINK = re.compile(r"\[([^\]]+)\]\(((?:[\w./-]+/)?(?:openapi|openapi-admin))\.json\)")
# Without path: other JSON is taken for a page, too.
FILE_LINK = re.compile(r"\[([^\]]+)\]\(([\w./-]+(?<!asyncapi)\.json)\)")


def read(_app: Sphinx, name: str, source: list[str]) -> None:
    """The document of /ws is made Markdown, links to the others lead to their pages; pictures are those of light and dark."""
    if name == "docs/asyncapi":
        source[0] = messages.page(source[0])
    source[0] = DOCUMENT_LINK.sub(r'<a href="\2.html">\1</a>', source[0])
    source[0] = FILE_LINK.sub(r"[\1](path:\2)", source[0])
    source[0] = PICTURE.sub(r"![\2](\3){.only-light}\n![\2](\1){.only-dark}", source[0])
    if name == root_doc:
        source[0] += CONTENTS


def give_document(_app: Sphinx, name: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """An API's page has its document in it, so that it can be read from a disk as well."""
    if name in html_additional_pages:
        context["document"] = (ROOT / f"{name}.json").read_text(encoding="utf-8").replace("</", r"<\/")


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copy(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    app.connect("source-read", read)
    app.connect("html-page-context", give_document)
    app.connect("build-finished", finish)
