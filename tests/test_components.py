import pytest

from limbeck.components import Component, bind, check, resolve
from limbeck.errors import ComponentError


def scaled(value: int, *, factor: int, offset: int = 0) -> int:
    return value * factor + offset


TABLE = {"scaled": scaled}


def test_a_component_binds_its_keywords() -> None:
    assert bind(Component(use="scaled", factor=3), TABLE, "function")(2) == 6


def test_an_import_path_names_any_callable() -> None:
    assert resolve(Component(use="math:hypot"), TABLE, "function")(3, 4) == 5


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component(use="scalde", factor=1), r"no function 'scalde'; did you mean 'scaled'\?"),
        (Component(use="zzz"), r"no function 'zzz'; known: scaled"),
        (Component(use="scaled", facter=1), r"has no keyword 'facter'; did you mean 'factor'\?"),
        (Component(use="scaled"), r"needs factor; add it beside `use`"),
        (Component(use="no.such_module:thing"), r"cannot import 'no.such_module'"),
        (Component(use="math:hypott"), r"math has no callable 'hypott'; did you mean 'hypot'\?"),
    ],
)
def test_a_wrong_component_says_what_is_wrong_and_what_is_near(component: Component, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        check(component, TABLE, "function")
