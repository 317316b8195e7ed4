from related_images.wire import routes


def test_a_link_stands_below_the_registrys_api() -> None:
    path = routes.href(
        routes.RELATION, image_id="a", installation_uuid="b", instance_id="c", kind="d"
    )
    assert path == "/v2/images/a/relations/b/c/d"
    assert routes.href(routes.RELATIONS) == "/v2/relations"
