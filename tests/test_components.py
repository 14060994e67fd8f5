import pytest
from pydantic import NonNegativeInt

from limbeck.components import Component, bind, check, resolve, unwatched
from limbeck.errors import ComponentError
from limbeck.models.resnet import resnet


def scaled(value: int, *, factor: int, offset: NonNegativeInt = 0) -> int:
    return value * factor + offset


class Sectioned(Component):
    """A component with keys of its section beside its keywords."""

    strength: float


TABLE = {"scaled": scaled, "resnet": resnet}


def test_a_component_binds_its_keywords() -> None:
    assert bind(Component(use="scaled", factor=3), TABLE, "function")(2) == 6


def test_an_import_path_names_any_callable() -> None:
    assert resolve(Component(use="math:hypot"), TABLE, "function")(3, 4) == 5


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component(use="scalde", factor=1), r"no function 'scalde'; did you mean 'scaled'\?"),
        (Component(use="zzz"), r"no function 'zzz'; known: resnet, scaled"),
        (Component(use="scaled", facter=1), r"has no keyword 'facter'; did you mean 'factor'\?"),
        (Sectioned.model_validate({"use": "scaled", "factor": 3, "strength": 1, "strenght": 2}), "mean 'strength'"),
        (Component(use="scaled"), r"needs factor; add it beside `use`"),
        (Component(use="no.such_module:thing"), r"cannot import 'no.such_module'"),
        (Component(use="scaled", factor="three"), r"factor is 'three'; Input should be a valid integer"),
        (Component(use="scaled", factor=3, offset=-1), r"offset is -1; Input should be greater than or equal to 0"),
        (Component(use="resnet", width=8, depth=9), r"depth is 9; expected 6n \+ 2: 8, 14, 20"),
        (Component(use="math:hypott"), r"math has no callable 'hypott'; did you mean 'hypot'\?"),
    ],
)
def test_a_wrong_component_says_what_is_wrong_and_what_is_near(component: Component, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        check(component, TABLE, "function")


def test_code_that_dvc_does_not_watch_is_told_with_the_place_where_it_would() -> None:
    for use in ("kd", "custom.losses.mine:soft", "limbeck.objectives:kd"):
        assert unwatched(Component(use=use), "loss") is None
    told = unwatched(Component(use="custom.models.mine:soft"), "loss")
    assert told == (
        "loss 'custom.models.mine:soft': DVC does not watch that code, so a change of it runs nothing again; "
        "in custom/losses/ it does."
    )
