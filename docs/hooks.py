"""Pages of the site that are files at the root of the repository; MkDocs runs this."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        text = LINK.sub(_within_site, (root / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def _within_site(link: re.Match[str]) -> str:
    """A link from the root as one from docs/; what the site does not hold stays as its text."""
    target, anchor = link["target"], link["anchor"] or ""
    if "://" in target:
        return link[0]
    if target in PAGES:
        target = PAGES[target]
    elif target.startswith("docs/"):
        target = target.removeprefix("docs/")
    else:
        return link["text"]
    return f"{link['image']}[{link['text']}]({target}{anchor})"
