"""Two thousand configuration files of SAEs, most of them hostile: each is read right, or is refused in one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.test_any_files import CONFIG_FILES, objects, read_changed_setting, read_settings

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("format", CONFIG_FILES)
@settings(max_examples=250, deadline=None)
@given(objects)
def test_any_settings(format, content):
    read_settings(format, content)


@pytest.mark.parametrize("format", CONFIG_FILES)
@settings(max_examples=250, deadline=None)
@given(st.data())
def test_any_value_of_a_setting(format, data):
    read_changed_setting(format, data)
