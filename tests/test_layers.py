"""A module imports only from layers to its left: the order of the design, held by the abstract syntax tree."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "genda"
LAYERS = (
    {"variables", "grid", "linalg", "assets", "atomic", "documents", "extras", "grib"},
    {"files"},
    {"state", "sphere", "nn", "observations", "regrid"},
    {"problem"},
    {"diffusion", "physics", "parallel", "workers"},
    {"data"},
    {"checkpoint"},
    {"latent_card", "latent_model", "settings"},
    {"guidance"},
    {"methods", "forecast"},
    {"latent_methods", "sources"},
    {"state_methods"},
    {"assimilation", "cycle", "observable", "sample", "verify"},
    {"foreign_climate", "report", "train", "usable"},
    {"benchmark"},
    {"demo", "commands", "earth2studio"},
    {"cli"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "genda":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("genda.")}
    return found & RANK.keys() | {
        name for name in found if (SOURCE / name).exists() or (SOURCE / f"{name}.py").exists()
    }


def test_modules_import_only_from_layers_to_their_left():
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in RANK, f"{own} has no layer"
        wrong += [f"{path.relative_to(SOURCE)} imports {other}" for other in _imports(path) if RANK[other] > RANK[own]]
    assert not wrong, "\n".join(wrong)


def test_only_one_module_uses_torch_distributed():
    users = {p.name for p in SOURCE.rglob("*.py") if "torch.distributed" in p.read_text()}
    assert users <= {"parallel.py"}


def test_scripts_run_from_anywhere():
    """A script finds its siblings, never the folder that they are in."""
    scripts = list((SOURCE.parents[1] / "benchmarks").rglob("*.py"))
    assert scripts
    for path in scripts:
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        names = {getattr(node, "module", None) or node.names[0].name for node in nodes}
        assert not {name for name in names if name.split(".")[0] == "benchmarks"}, path


def test_help_imports_neither_torch_nor_xarray():
    import subprocess
    import sys

    code = "import sys, genda.cli; sys.exit(bool({'torch', 'xarray', 'pandas', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
