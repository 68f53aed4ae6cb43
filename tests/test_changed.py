"""Which tests `make check` runs."""

from __future__ import annotations

from tests.changed import ALWAYS, files_for, imported_modules


def test_a_changed_module_concerns_the_tests_that_import_it() -> None:
    assert "tests/mtrain/test_folds.py" in files_for(["mtrain/transfers/classifiers/folds.py"])
    assert "tests/mtrain/test_report.py" not in files_for(["mtrain/transfers/classifiers/folds.py"])


def test_a_changed_test_concerns_itself_and_a_helper_those_that_use_it() -> None:
    assert files_for(["tests/mtrain/test_metrics.py"]) == ["tests/mtrain/test_metrics.py", ALWAYS]
    assert {"tests/mtrain/test_fit.py", "tests/mtrain/test_loader.py"} <= set(files_for(["tests/mtrain/pools.py"]))


def test_documents_concern_the_tests_that_read_them() -> None:
    assert "tests/test_docs.py" in files_for(["docs/format.md"])
    assert "tests/test_packaging.py" in files_for(["constraints.txt"])


def test_nothing_changed_needs_no_test() -> None:
    assert files_for([]) == []


def test_imports_within_functions_count() -> None:
    source = "import a.b as c\ndef f():\n    from d import e\n"
    assert imported_modules(source) == {"a.b", "d", "d.e"}
