import pytest
import torch

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.errors import ComponentError
from tests.models.foreign import Backbone

FOREIGN = "tests.models.foreign"


def test_a_callable_of_another_package_is_told_the_classes_by_keyword() -> None:
    for use in ("Backbone", "backbone", "listed"):
        body = models.builder(Component(use=f"{FOREIGN}:{use}"))((3, 8, 8), 5)
        assert isinstance(body, Backbone)
        assert body.fc.out_features == 5


def test_its_keywords_go_through() -> None:
    body = models.builder(Component(use=f"{FOREIGN}:backbone", in_chans=1, width=4))((1, 8, 8), 5)
    assert isinstance(body, Backbone)
    assert body.conv1.weight.shape == (4, 1, 3, 3)


def test_our_own_builders_are_called_by_position() -> None:
    body = models.builder(Component(use="limbeck.models.convnet:convnet", width=4, depth=2))((3, 8, 8), 5)
    assert body(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component(use=f"{FOREIGN}:headless"), r"takes no `num_classes` \(it takes depth\); wrap it in custom/"),
        (Component(use=f"{FOREIGN}:listed", wieghts=None), r"has no keyword 'wieghts'; did you mean 'weights'\?"),
        (
            Component(use=f"{FOREIGN}:backbone", pretrained=True),
            r"would fetch weights each time it is built; save them",
        ),
        (Component(use=f"{FOREIGN}:listed", weights="DEFAULT"), r"`weights: DEFAULT` would fetch weights each time"),
        (Component(use=f"{FOREIGN}:bakbone"), r"has no callable 'bakbone'; did you mean 'backbone'\?"),
    ],
)
def test_what_cannot_be_a_model_is_refused_before_anything_is_built(component: Component, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        models.builder(component)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component(use=f"{FOREIGN}:backbone", depth=2), r"cannot be built: .* unexpected keyword argument 'depth'"),
        (Component(use=f"{FOREIGN}:nothing"), r"gave a int, expected an nn.Module"),
    ],
)
def test_what_shows_only_in_the_building_is_named_too(component: Component, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        models.builder(component)((3, 8, 8), 5)


def spec(**changes: object) -> Spec:
    values: dict[str, object] = {
        "model": Component(use=f"{FOREIGN}:backbone"), "shape": (8, 8, 1), "dtype": "uint8", "classes": ("a", "b"),
        "mean": (10.0, 20.0, 30.0), "std": (1.0, 2.0, 4.0), **changes,
    }  # fmt: skip
    return Spec.model_validate(values)


def test_grey_images_become_the_channels_that_the_teacher_normalizes() -> None:
    network = models.build(spec())
    grey = torch.full((2, 8, 8, 1), 50, dtype=torch.uint8)
    assert network.preprocess(grey)[0, :, 0, 0].tolist() == [40.0, 15.0, 5.0]
    assert network.eval()(grey).shape == (2, 2)


def test_images_are_scaled_to_the_size_that_the_teacher_takes() -> None:
    network = models.build(spec(size=20))
    assert network.preprocess(torch.zeros(2, 8, 8, 1, dtype=torch.uint8)).shape == (2, 3, 20, 20)


def test_a_spec_without_a_size_is_written_as_before_there_were_any() -> None:
    assert "size" not in spec().model_dump(mode="json")
    assert spec(size=20).model_dump(mode="json")["size"] == 20
    assert Spec.model_validate(spec(size=20).model_dump(mode="json")) == spec(size=20)
