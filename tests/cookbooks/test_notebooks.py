"""Every notebook runs from top to bottom on the real engine."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

COOKBOOKS = Path(__file__).parents[2] / "cookbooks"


@pytest.mark.model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", sorted(COOKBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs(path: Path, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=500, kernel_name="python3").execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert re.search(r"(\d+) planned, \1 claimed, 0 not foreseen", printed)
