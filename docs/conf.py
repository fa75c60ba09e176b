"""Sphinx configuration of the manual. ``make docs`` builds it with ``-n -W``: every warning is an error."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "hvkernel"
author = "the hvkernel maintainers"
project_copyright = "the hvkernel maintainers, MIT licence"
release = metadata.version("hvkernel")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinxcontrib.autodoc_pydantic",
    "hvkernel_reference",
]
exclude_patterns = ["_ext"]
html_theme = "furo"
html_title = f"hvkernel {release}"
html_static_path: list[str] = []
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "separated"
autodoc_pydantic_model_show_json = False
autodoc_pydantic_model_show_config_summary = False
autodoc_pydantic_model_show_validator_summary = False
autodoc_pydantic_model_show_validator_members = False
autodoc_pydantic_model_show_field_summary = False
autodoc_pydantic_field_list_validators = False
autodoc_pydantic_field_show_constraints = False

doctest_test_doctest_blocks = ""
trim_doctest_flags = True

# Names of the standard library and of packages whose manuals are not at hand when this one is built.
nitpick_ignore_regex = [
    (r"py:.*", r"(typing|collections|uuid|pathlib|types|random|enum|dataclasses|pluggy|numpy|np|pydantic)\b.*"),
    (r"py:(exc|class)", r"(ValueError|TypeError|KeyError|OSError|RuntimeError|BufferError|IndexError|MemoryError)"),
    (r"py:.*", r"(annotated_types|pydantic_core)\b.*"),
]
