from related_images.protocol import paths


def test_link_is_below_the_api_prefix() -> None:
    path = paths.href(
        paths.RELATION, image_id="a", installation_uuid="b", instance_id="c", kind="d"
    )
    assert path == "/v2/images/a/relations/b/c/d"
    assert paths.href(paths.RELATIONS) == "/v2/relations"
