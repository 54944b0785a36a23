"""The dependencies of definitions, read from their code: what is known of them, and what is not."""

from __future__ import annotations

import pytest

from skewless.infra.compiler.compile_inputs import absolute_names, is_understood, read_code


@pytest.mark.parametrize(
    ("text", "variables", "everything"),
    [
        ("import os\nx = os.environ['A']", {"A"}, False),
        ("import os\nx = os.environ.get('A', os.getenv('B'))", {"A", "B"}, False),
        ("from os import environ, getenv\nx = environ['A'] + getenv('B', '')", {"A", "B"}, False),
        ("import os\nx = 'A' in os.environ and 'B' not in os.environ", {"A", "B"}, False),
        ("import os\nx = os.environ['A'], dict(os.environ)", {"A"}, True),
        ("import os\nname = 'A'\nx = os.environ[name]", set(), True),
        ("import os\ny = os.environ\nx = y['A']", set(), True),
        ("import os\nx = [os.getenv(n) for n in 'AB']", set(), True),
        ("import os\nread = os.getenv\nx = read('A')", set(), True),
        ("import os\nos.environ['A'] = '1'", set(), True),
        ("x = 1", set(), False),
    ],
)
def test_variables_are_named_or_all_of_them_count(text: str, variables: set[str], *, everything: bool) -> None:
    code = read_code(text)
    assert (set(code.variables), code.all_variables, code.unknown) == (variables, everything, None)


@pytest.mark.parametrize(
    "text",
    [
        "from datetime import datetime\nx = datetime.now()",
        "import datetime as d\nx = d.date.today()",
        "from pathlib import Path\nx = Path('a').exists()",
        "from pathlib import Path\nx = sorted(Path('a').glob('*'))",
        "import os\nx = os.listdir('.')",
        "from os import listdir",
        "import os.path\nx = os.path.getsize('a')",
        "from os.path import isfile",
        "import os as o\nx = o.listdir('.')",
        "import os\ny = os\nx = y.listdir('.')",
        "from os import environ as e\nx = e['A']",
        "x = eval('1')",
        "exec('x = 1')",
        "x = __import__('time').time()",
        "x = getattr(str, 'up' + 'per')",
        "from datetime import datetime\nx = getattr(datetime, 'now')()",
        "x = hash('a')",
        "x = id('a')",
        "x = (lambda: 0).__globals__",
        "x = __builtins__",
        "import numpy as np\nx = np.random.rand()",
        "import numpy as np\nx = np.datetime64('now')",
        "x = open('/proc/uptime').read()",
        "from operator import attrgetter\nx = attrgetter('a')",
        "from feast import FeatureStore",
        "import feast\nx = feast.FeatureStore('.')",
        "from skewless import Project",
        "from numpy import *",
        "import pathlib\nx = pathlib.os.listdir('.')",
        "import dataclasses\nx = dataclasses.sys.argv",
    ],
)
def test_code_whose_inputs_cannot_be_known_is_refused(text: str) -> None:
    assert read_code(text).unknown is not None


@pytest.mark.parametrize(
    "text",
    [
        "from pathlib import Path\nx = Path(__file__).parent.joinpath('a.txt').read_text()",
        "import re\nx = re.compile('a').match('a').group()",
        "import json\nx = json.load(open('a.json'))",
        "import numpy as np\nx = np.where(np.isnan([1.0]), 0, 1)",
        "x = getattr('a', 'upper')()",
        "x = hasattr('a', 'tzinfo')",
        "from datetime import timedelta\nx = timedelta(days=1)",
        "if __name__ == '__main__':\n    pass",
    ],
)
def test_ordinary_code_is_understood(text: str) -> None:
    assert read_code(text).unknown is None


def test_paths_that_depend_on_the_working_folder_are_seen() -> None:
    assert read_code("from pathlib import Path\nx = Path('data').resolve()").working_folder
    assert not read_code("from pathlib import Path\nx = Path('data')").working_folder


def test_imports_are_followed_by_their_full_names() -> None:
    code = read_code("import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\nfrom ..h import i")
    assert list(absolute_names(code, "top.mid")) == [
        "a.b",
        "c",
        "c.d",
        "top.mid",
        "top.mid.e",
        "top.mid.f",
        "top.mid.f.g",
        "top.h",
        "top.h.i",
    ]


@pytest.mark.parametrize(
    ("module", "understood"),
    [
        ("datetime", True),
        ("collections.abc", True),
        ("numpy.typing", True),
        ("feast", True),
        ("feast.types", True),
        ("feast.repo_config", False),
        ("feast.infra.offline_stores.file_source", True),
        ("skewless.contract.spec", True),
        ("skewless.workspace", False),
        ("pandas", False),
        ("time", False),
        ("subprocess", False),
        ("company_features", False),
    ],
)
def test_libraries_are_understood_by_name(module: str, *, understood: bool) -> None:
    assert is_understood(module) is understood
