"""Sphinx configuration: `make docs` builds the pages and treats every warning as an error."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

sys.path.insert(0, str(Path(__file__).parent))  # mathml.py

project = "scorefield"
author = "The scorefield authors"
copyright = author
release = version = installed_version("scorefield")

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute", "posteriors/*.md", "**.ipynb_checkpoints"]

# Pages are Markdown; docstrings are reStructuredText with Google's sections.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # NamedTuples document their fields themselves

# One page a module, generated from the modules that are there.
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# Notebooks are stored with their outputs; the tests run them.
nb_execution_mode = "off"
nb_merge_streams = True

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"scorefield {release}"
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> None:
    app.connect("env-updated", without_modules)


def without_modules(app: Sphinx, env: BuildEnvironment) -> None:
    """Takes the modules out of the navigation beside every page: there are hundreds, which the
    pages of the reference list, and each page would be written with all of them."""
    for page, contents in env.tocs.items():
        if page == "api" or page.startswith("_api/"):
            for entry in list(contents.findall(addnodes.toctree)):
                entry.parent.remove(entry)
