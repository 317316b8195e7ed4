"""The same tests with each supported client, and a real Glance with the filter."""

import io
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from related_images.client import (
    Conflict,
    Forbidden,
    GlanceError,
    Image,
    ImageNotOfInstance,
    InstanceAwareImageService,
    InstanceRef,
    NewOrigin,
    NotFound,
    Origin,
    PayloadTooLarge,
    RelationsClient,
    carry_tuple,
    for_instance,
)
from tests.client.clients import INSTALLATION, MAKERS, MEMBER, OTHER_INSTALLATION, SERVICE, Maker
from tests.servers import ServedGlance

ADMIN = "root:administration:admin"
FORMATS: dict[str, Any] = {"disk_format": "raw", "container_format": "bare"}


@pytest.fixture(scope="module")
def small_glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    """A Glance with a quota of one megabyte for each project."""
    quota = "[DEFAULT]\nuser_storage_quota = 1MB\n"
    with ServedGlance(tmp_path_factory.mktemp("small"), glance_conf=quota) as served:
        yield served


@pytest.fixture(scope="module")
def guarded_glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    """A Glance with delete protection."""
    with ServedGlance(tmp_path_factory.mktemp("guarded"), {"guard": "in-use"}) as served:
        yield served


@pytest.fixture
def images(make_client: Maker, glance: ServedGlance) -> InstanceAwareImageService:
    return InstanceAwareImageService(make_client(glance.url, SERVICE), INSTALLATION)


@pytest.fixture
def instance() -> str:
    return f"inst-{uuid4()}"


@pytest.fixture
def backup(images: InstanceAwareImageService, instance: str) -> Callable[[str], Image]:
    def make(label: str) -> Image:
        image = images.create(instance, kind="backup", label=label, name=label, **FORMATS)
        images.upload(image.id, label.encode())
        return image

    return make


def test_a_created_image_is_acknowledged_and_recorded(
    images: InstanceAwareImageService, instance: str
) -> None:
    before = datetime.now(UTC)
    image = images.create(instance, kind="backup", label="daily", name="x", tags=["a"])
    assert (image.acknowledgement, image.status, image["name"]) == ("backup", "queued", "x")
    assert image.tags == ["a"]
    (relation,) = images.relations(instance)
    assert relation.instance == InstanceRef(INSTALLATION, instance)
    assert (relation.image_id, relation.kind, relation.label) == (image.id, "backup", "daily")
    assert (relation.source, relation.project_id) == ("service", "service-project")
    assert relation.image_deleted_at is None
    assert before - timedelta(seconds=5) < relation.created_at < datetime.now(UTC)


def test_properties_may_have_the_names_of_arguments(
    images: InstanceAwareImageService, instance: str
) -> None:
    said = {"kind": "x", "label": "red", "instance_id": "y", "properties": "z"}
    image = images.create(instance, kind="backup", label="daily", properties=said, name="n")
    assert {name: image[name] for name in said} == said
    (relation,) = images.relations(instance)
    assert (relation.kind, relation.label) == ("backup", "daily")
    images.create(instance, kind="snapshot")
    found = images.list(instance, label="daily", properties={"label": "red", "kind": "x"})
    assert [it.id for it in found] == [image.id]
    assert not list(images.list(instance, properties={"label": "daily"}))


def test_properties_that_contradict_the_arguments_are_refused(
    images: InstanceAwareImageService, instance: str
) -> None:
    with pytest.raises(TypeError, match="name is both an argument and in properties"):
        images.create(instance, kind="snapshot", name="x", properties={"name": "y"})
    for name in ("installation_uuid", "instance_id", "relation_kind", "relation_colour"):
        with pytest.raises(TypeError, match=f"{name} cannot be a filter"):
            images.list(instance, properties={name: "x"})
    assert not list(images.relations(instance))


def test_images_of_all_servers(
    images: InstanceAwareImageService, make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    label = f"label-{uuid4()}"
    base = images.create(f"{instance}-base", kind="snapshot")
    images.attach(instance, base.id, kind="boot", instance_project_id="service-project")
    first = images.create(instance, kind="backup", label=label, name="b")
    second = images.create(f"{instance}-2", kind="snapshot", label=label, name="a")

    def found(**conditions: Any) -> list[str]:
        return [image.id for image in images.list(sort="name", page_size=1, **conditions)]

    assert found(label=label) == [first.id, second.id]
    assert found(label=label, kind="snapshot") == [second.id]
    assert found(label=label, created_after=datetime.now(UTC)) == []
    assert found(label=label, source="backfill") == []
    assert found(label=label, in_use=False, created_at="gt:2020-01-01") == [first.id, second.id]
    assert found(descends_from=base.id) == [first.id]
    assert base.id in [image.id for image in images.list(in_use=True, page_size=1000)]
    (image,) = images.list(label=label, name="a")
    assert image.acknowledgement == "resource_type, label"
    relations = RelationsClient(make_client(glance.url, MEMBER))
    assert {image.id for image in relations.images(label=label)} == {first.id, second.id}
    assert not list(relations.images(resource_type="volume", label=label))
    here = relations.images(installation_uuid=images.installation_uuid, label=label)
    assert {image.id for image in here} == {first.id, second.id}
    assert not list(relations.images(installation_uuid=str(uuid4()), label=label))


def test_the_caller_may_choose_the_id_once(
    images: InstanceAwareImageService, instance: str
) -> None:
    chosen = str(uuid4())
    assert images.create(instance, kind="snapshot", id=chosen).id == chosen
    with pytest.raises(Conflict, match="already exists") as caught:
        images.create(instance, kind="snapshot", id=chosen)
    assert caught.value.image_id is None  # this call created none
    assert [image.id for image in images.list(instance)] == [chosen]


@pytest.mark.parametrize("data", [b"12345", io.BytesIO(b"12345"), (b"12", b"345"), Path("12345")])
def test_data_of_each_type_is_stored(
    images: InstanceAwareImageService, instance: str, data: Any, tmp_path: Path
) -> None:
    if isinstance(data, Path):
        data = tmp_path / data
        data.write_bytes(b"12345")
    image = images.create(instance, kind="snapshot", **FORMATS)
    if isinstance(data, io.BytesIO):
        data.seek(0)
    images.upload(image.id, data)
    stored = images.get(image.id)
    assert (stored.status, stored.size) == ("active", 5)
    assert stored.acknowledgement is None
    with pytest.raises(Conflict):
        images.upload(image.id, b"more")


def test_data_over_the_quota_are_refused_and_the_client_still_works(
    make_client: Maker, small_glance: ServedGlance, instance: str
) -> None:
    images = InstanceAwareImageService(make_client(small_glance.url, SERVICE), INSTALLATION)
    image = images.create(instance, kind="snapshot", **FORMATS)
    with pytest.raises(PayloadTooLarge, match="quota"):
        images.upload(image.id, b"x" * 2_000_000)
    images.delete(image.id, instance_id=instance)
    assert not list(images.list(instance))


def test_lists_have_only_images_of_the_server_on_all_pages(
    images: InstanceAwareImageService, instance: str
) -> None:
    images.create(f"{instance}-other", kind="snapshot", name="other")
    made = [images.create(instance, kind="snapshot", name=f"n{number}").id for number in range(5)]
    found = list(images.list(instance, page_size=2, sort_key="name", sort_dir="asc"))
    assert [image.id for image in found] == made
    assert {image.acknowledgement for image in found} == {"installation_uuid, instance_id"}
    assert [image.id for image in images.list(instance, sort="name:desc", limit=3)] == made[:1:-1]
    assert [image.name for image in images.list(instance, name="n3")] == ["n3"]


def test_lists_are_filtered_by_kind_label_and_glances_filters(
    images: InstanceAwareImageService, instance: str
) -> None:
    snapshot = images.create(instance, kind="snapshot", tags=["a"], os_version="1")
    daily = images.create(instance, kind="backup", label="daily", tags=["a", "b"])
    weekly = images.create(instance, kind="backup", label="weekly")

    def ids(**filters: object) -> set[str]:
        return {image.id for image in images.list(instance, **filters)}  # type: ignore[arg-type]

    assert ids() == {snapshot.id, daily.id, weekly.id}
    assert ids(kind="snapshot") == {snapshot.id}
    assert ids(kind="backup") == {daily.id, weekly.id}
    assert ids(label="weekly") == {weekly.id}
    assert ids(kind="backup", label="daily") == {daily.id}
    assert ids(tag="a") == {snapshot.id, daily.id}
    assert ids(tag=("a", "b")) == {daily.id}
    assert ids(os_version="1") == {snapshot.id}
    assert ids(status="active") == set()


def test_the_same_instance_id_in_two_installations_is_two_servers(
    images: InstanceAwareImageService, make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    others = InstanceAwareImageService(make_client(glance.url, SERVICE), OTHER_INSTALLATION)
    mine, theirs = (
        images.create(instance, kind="snapshot"),
        others.create(instance, kind="snapshot"),
    )
    assert [image.id for image in images.list(instance)] == [mine.id]
    assert [image.id for image in others.list(instance)] == [theirs.id]
    assert [relation.image_id for relation in others.relations(instance)] == [theirs.id]
    with pytest.raises(ImageNotOfInstance):
        others.delete(mine.id, instance_id=instance)
    everywhere = RelationsClient(make_client(glance.url, SERVICE)).relations(instance_id=instance)
    assert {relation.image_id for relation in everywhere} == {mine.id, theirs.id}


def test_an_unknown_server_has_no_images(images: InstanceAwareImageService, instance: str) -> None:
    assert not list(images.list(instance))
    assert not list(images.backups(instance))
    assert not list(images.relations(instance))
    assert not list(images.instances(instance_id=instance))


def test_backups_are_active_and_sorted_newest_first(
    images: InstanceAwareImageService, instance: str, backup: Callable[[str], Image]
) -> None:
    first, second, weekly = backup("daily"), backup("daily"), backup("weekly")
    images.create(instance, kind="backup", label="daily", name="never uploaded")
    images.upload(images.create(instance, kind="snapshot", **FORMATS).id, b"a snapshot")
    found = list(images.backups(instance))
    assert {image.id for image in found} == {first.id, second.id, weekly.id}
    assert sorted(found, key=lambda image: str(image.created_at), reverse=True) == found
    assert {image.id for image in images.backups(instance, "daily")} == {first.id, second.id}


def test_an_image_is_deleted_only_for_its_own_server(
    images: InstanceAwareImageService, instance: str
) -> None:
    image = images.create(instance, kind="snapshot")
    with pytest.raises(ImageNotOfInstance, match="nothing was deleted"):
        images.delete(image.id, instance_id=f"{instance}-other")
    assert images.get(image.id).status == "queued"
    images.delete(image.id, instance_id=instance)
    with pytest.raises(NotFound):
        images.get(image.id)
    assert not list(images.list(instance))
    (relation,) = images.relations(instance)
    assert relation.image_deleted_at is not None
    with pytest.raises(NotFound):
        images.delete(image.id)


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_later_image_with_the_id_is_not_deleted(
    images: InstanceAwareImageService, glance: ServedGlance, instance: str, is_noted: bool
) -> None:
    image = images.create(instance, kind="snapshot")
    if is_noted:
        images.delete(image.id)
    glance.purge(image.id)
    time.sleep(1.1)  # Glance tells the time of an image in seconds
    again = glance.request("POST", "/v2/images", MEMBER, {}, {"id": image.id, "name": "other's"})
    assert again.status == 201, again.body
    administered = InstanceAwareImageService(MAKERS["adapter"](glance.url, ADMIN), INSTALLATION)
    with pytest.raises(ImageNotOfInstance, match="nothing was deleted"):
        administered.delete(image.id, instance_id=instance)
    assert administered.get(image.id)["name"] == "other's"


def test_a_boot_image_is_not_deleted_as_the_servers_own(
    images: InstanceAwareImageService, instance: str
) -> None:
    image = images.create(f"{instance}-other", kind="snapshot")
    images.attach(instance, image.id, kind="boot")
    with pytest.raises(ImageNotOfInstance):
        images.delete(image.id, instance_id=instance)
    images.delete(image.id, instance_id=f"{instance}-other")


def test_attaching_twice_and_detaching(images: InstanceAwareImageService, instance: str) -> None:
    image = images.create(f"{instance}-other", kind="snapshot")
    attached = images.attach(instance, image.id, kind="backup", label="daily")
    assert images.attach(instance, image.id, kind="backup", label="daily") == attached
    assert list(images.relations(instance)) == [attached]
    assert [found.id for found in images.list(instance)] == [image.id]
    images.detach(instance, image.id, kind="backup")
    assert not list(images.relations(instance))
    with pytest.raises(NotFound):
        images.detach(instance, image.id, kind="backup")
    with pytest.raises(NotFound) as caught:
        images.attach(instance, str(uuid4()), kind="backup")
    assert caught.value.code == "image.not-found"


def test_a_relation_that_others_report_stays_after_a_rollback(
    images: InstanceAwareImageService, make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    image = images.create(f"{instance}-other", kind="snapshot")
    relations, ref = (
        RelationsClient(make_client(glance.url, SERVICE)),
        images.instance_ref(instance),
    )
    attached = [images.attach(instance, image.id, kind="backup") for _ in range(2)]
    taken = [relations.roll_back(ref, image.id, "backup", one.created_at) for one in attached]
    assert taken == [False, True]
    with pytest.raises(NotFound):
        relations.roll_back(ref, image.id, "backup", attached[0].created_at)
    other = images.instance_ref(f"{instance}-other")
    assert relations.roll_back(other, image.id, "snapshot") is True


def test_the_project_of_the_server_sees_a_boot(
    images: InstanceAwareImageService, make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    image = images.create(f"{instance}-other", kind="snapshot", visibility="community")
    project = f"project-of-{instance}"
    told = images.attach(instance, image.id, kind="boot", instance_project_id=project)
    assert told.project_id == project
    token = glance.token("carol", project, "member", "reader")
    tenant = InstanceAwareImageService(make_client(glance.url, token), INSTALLATION)
    assert list(tenant.relations(instance)) == [told]


def test_the_service_ignores_the_context(
    make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    client = carry_tuple(make_client(glance.url, SERVICE))
    images = InstanceAwareImageService(client, INSTALLATION)
    other = InstanceRef(OTHER_INSTALLATION, f"{instance}-other")
    with for_instance(other, kind="backup", label="daily"):
        image = images.create(instance, kind="snapshot")
        assert [found.id for found in images.list(instance)] == [image.id]
    (relation,) = RelationsClient(client).relations(image_id=image.id)
    assert relation.instance == images.instance_ref(instance)
    assert (relation.kind, relation.label) == ("snapshot", None)


def test_relations_are_filtered_and_paged(images: InstanceAwareImageService, instance: str) -> None:
    made = [images.create(instance, kind=kind).id for kind in ("snapshot", "backup", "backup")]
    newest_first = [relation.image_id for relation in images.relations(instance, page_size=1)]
    assert newest_first == made[::-1]
    assert [one.image_id for one in images.relations(instance, kind="snapshot")] == made[:1]
    assert [one.image_id for one in images.relations(image_id=made[1])] == [made[1]]
    hour = timedelta(hours=1)
    assert not list(images.relations(instance, created_after=datetime.now(UTC) + hour))
    assert len(list(images.relations(instance, created_after=datetime.now(UTC) - hour))) == 3


def test_instances_have_counts_and_can_end(
    images: InstanceAwareImageService, instance: str, backup: Callable[[str], Image]
) -> None:
    made = [backup("daily"), backup("daily")]
    snapshot = images.create(instance, kind="snapshot")
    (found,) = images.instances(instance_id=instance)
    assert found.instance == images.instance_ref(instance)
    assert (found.images["backup"].count, found.images["snapshot"].count) == (2, 1)
    assert found.images["backup"].latest_image_id == made[1].id
    assert found.images["snapshot"].latest_image_id == snapshot.id
    assert found.images["backup"].oldest_at <= found.images["backup"].latest_at
    assert found.ended_at is None

    images.instance_ended(instance)
    (ended,) = images.instances(instance_id=instance)
    assert ended.ended_at is not None
    assert len(list(images.list(instance))) == 3
    with pytest.raises(NotFound):
        images.instance_ended(f"{instance}-other")


def test_an_account_without_a_recording_role_only_reads(
    images: InstanceAwareImageService, make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    image = images.create(instance, kind="snapshot")
    member = InstanceAwareImageService(make_client(glance.url, MEMBER), INSTALLATION)
    with pytest.raises(Forbidden) as caught:
        member.create(instance, kind="snapshot")
    assert caught.value.code == "relation.forbidden"
    assert caught.value.request_id
    with pytest.raises(Forbidden):
        member.attach(instance, image.id, kind="backup")
    assert [found.id for found in member.list(instance)] == [image.id]


def test_other_projects_see_nothing(
    images: InstanceAwareImageService, make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    image = images.create(instance, kind="snapshot")
    foreign = glance.token("bob", "another-project", "member", "reader")
    stranger = InstanceAwareImageService(make_client(glance.url, foreign), INSTALLATION)
    assert not list(stranger.list(instance))
    assert not list(stranger.relations(instance))
    with pytest.raises(NotFound):
        stranger.delete(image.id, instance_id=instance)
    assert images.get(image.id).id == image.id


def test_errors_of_glance_have_its_message(
    images: InstanceAwareImageService, instance: str
) -> None:
    with pytest.raises(GlanceError, match="nope"):
        images.create(instance, kind="snapshot", disk_format="nope")
    with pytest.raises(GlanceError):
        list(images.list(instance, sort_key="nope"))
    assert not list(images.relations(instance))


def test_an_administrator_can_force_the_deletion_of_an_image_in_use(
    make_client: Maker, guarded_glance: ServedGlance, instance: str
) -> None:
    def service_of(token: str) -> InstanceAwareImageService:
        return InstanceAwareImageService(make_client(guarded_glance.url, token), INSTALLATION)

    nova, admin = service_of(SERVICE), service_of(ADMIN)
    image = nova.create(f"{instance}-other", kind="snapshot")
    nova.attach(instance, image.id, kind="boot")
    with pytest.raises(Conflict, match=f"openstack image force delete {image.id}") as refused:
        admin.delete(image.id)
    assert refused.value.code == "image.in-use"
    assert refused.value.dependents == admin.dependent_summary(image.id)
    assert refused.value.dependents.by_type["server"].live == 1
    assert "are 1 live server (1 direct, 0 indirect), of " in str(refused.value)
    with pytest.raises(Conflict, match="none of these admin roles: admin"):
        nova.delete(image.id, force=True)
    admin.delete(image.id, force=True)
    with pytest.raises(NotFound):
        admin.get(image.id)


def test_an_administrator_detaches_and_records_that_an_instance_was_deleted(
    make_client: Maker, glance: ServedGlance, images: InstanceAwareImageService, instance: str
) -> None:
    admin = InstanceAwareImageService(make_client(glance.url, ADMIN), INSTALLATION)
    image = images.create(instance, kind="snapshot")
    admin.instance_ended(instance)
    (ended,) = images.instances(instance_id=instance)
    assert ended.ended_at is not None
    assert [relation.source for relation in images.relations(instance)] == ["service"]
    admin.detach(instance, image.id, kind="snapshot")
    assert not list(images.relations(instance))
    with pytest.raises(Forbidden) as refused:
        admin.attach(instance, image.id, kind="snapshot")
    assert refused.value.code == "relation.forbidden"


def test_info_describes_the_deployment(images: InstanceAwareImageService) -> None:
    info = images.info()
    assert info.kinds == ("snapshot", "backup", "shelved", "boot", "use")
    assert info.answer["version"] == info.version


def test_usages_are_counted(
    make_client: Maker, glance: ServedGlance, images: InstanceAwareImageService, instance: str
) -> None:
    client = RelationsClient(make_client(glance.url, SERVICE))
    made = [images.create(instance, kind="snapshot", name=str(number)).id for number in range(2)]
    user = InstanceRef(INSTALLATION, f"{instance}-user")
    client.attach(user, made[1], "boot")
    # more than one request has
    others = [str(uuid4()) for _ in range(100)]
    usages = list(client.usages([*others, *made]))
    assert [usage.image_id for usage in usages] == [*others, *made]
    assert [usage.live_instances for usage in usages[-2:]] == [0, 1]
    assert {usage.all_projects for usage in usages} == {True}
    assert [it.instance for it in client.relations(image_id=made[1], in_use=True)] == [user]
    client.instance_ended(user)
    (usage,) = client.usages([made[1]])
    assert (usage.instances, usage.live_instances) == (1, 0)
    assert usage.unused_since == client.instance(user).ended_at
    assert list(client.relations(image_id=made[1], in_use=True)) == []


def test_a_service_for_volumes_leaves_the_server_with_the_same_id_alone(
    images: InstanceAwareImageService, make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    client = make_client(glance.url, SERVICE)
    volumes = InstanceAwareImageService(client, INSTALLATION, "volume")
    assert volumes.instance_ref(instance) == InstanceRef(INSTALLATION, instance, "volume")
    base = images.create("base", kind="snapshot", name="base")
    of_server = images.create(instance, kind="snapshot", name="s")
    of_volume = volumes.create(instance, kind="backup", label="daily", name="v")
    assert [image.id for image in images.list(instance)] == [of_server.id]
    assert [image.id for image in volumes.list(instance)] == [of_volume.id]
    assert [image.id for image in volumes.list(instance, label="daily")] == [of_volume.id]
    attached = volumes.attach(instance, base.id, kind="boot", instance_project_id="demo")
    assert attached.instance == volumes.instance_ref(instance)
    assert {relation.kind for relation in volumes.relations(instance)} == {"backup", "boot"}
    assert {relation.kind for relation in images.relations(instance)} == {"snapshot"}
    (found,) = volumes.instances(instance_id=instance)
    assert (found.resource_type, found.boot_image_id) == ("volume", base.id)
    (parent,) = volumes.ancestry(of_volume.id)
    assert (parent.image_id, parent.via) == (base.id, (volumes.instance_ref(instance),))
    with pytest.raises(ImageNotOfInstance):
        images.delete(of_volume.id, instance_id=instance)
    relations = RelationsClient(client)
    volumes.instance_ended(instance)
    assert relations.instance(volumes.instance_ref(instance)).ended_at is not None
    assert relations.instance(images.instance_ref(instance)).ended_at is None
    ref = volumes.instance_ref(instance)
    assert relations.roll_back(ref, base.id, "boot", attached.created_at)
    volumes.detach(instance, of_volume.id, kind="backup")
    assert list(volumes.relations(instance)) == []
    assert [relation.kind for relation in images.relations(instance)] == ["snapshot"]


def test_the_context_sends_the_type(
    images: InstanceAwareImageService, make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    client = make_client(glance.url, SERVICE)
    volumes = InstanceAwareImageService(client, INSTALLATION, "volume")
    made = volumes.create(instance, kind="snapshot", name="v")
    adapter = MAKERS["adapter"](glance.url, SERVICE)
    carry_tuple(adapter)
    with for_instance(volumes.instance_ref(instance)):
        listed = adapter.get("/v2/images").json()["images"]
    assert [image["id"] for image in listed] == [made.id]
    with for_instance(images.instance_ref(instance)):
        assert adapter.get("/v2/images").json()["images"] == []


def test_origins_are_recorded_and_listed_in_pages(
    make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    client = RelationsClient(make_client(glance.url, SERVICE))
    installation, since = str(uuid4()), datetime(2026, 1, 31, 2, tzinfo=UTC)
    volumes = [InstanceRef(installation, f"{instance}-{at}", "volume") for at in range(102)]
    new = [
        NewOrigin(volume, source, since + timedelta(hours=at), "demo")
        for at, (volume, source) in enumerate(zip(volumes[1:], volumes, strict=False))
    ]
    new.append(NewOrigin(volumes[0], None, since - timedelta(hours=1)))
    # two requests
    *recorded, blank = client.record_origins(iter(new))
    assert client.record_origins(new) == [*recorded, blank]
    assert isinstance(blank, Origin)
    assert (blank.instance, blank.has_source, blank.project_id) == (volumes[0], False, None)
    assert [
        (one.instance, one.source, one.since) for one in recorded if isinstance(one, Origin)
    ] == [(one.instance, one.source, one.since) for one in new[:-1]]
    listed = list(client.origins(installation_uuid=installation, page_size=50))
    assert listed == [*reversed(recorded), blank]
    later = client.origins(installation_uuid=installation, created_after=new[-3].since)
    assert [one.instance for one in later] == [new[-2].instance]
    assert list(client.origins(instance_id=f"{instance}-5", limit=1)) == [recorded[4]]


def test_a_wrong_origin_is_removed(make_client: Maker, glance: ServedGlance, instance: str) -> None:
    client = RelationsClient(make_client(glance.url, SERVICE))
    volume = InstanceRef(INSTALLATION, instance, "volume")
    since = datetime(2026, 1, 31, 2, 0, 0, 123456, tzinfo=UTC)
    wrong = NewOrigin(volume, InstanceRef(INSTALLATION, f"{instance}-2", "volume"), since, "demo")
    _, other = client.record_origins([wrong, NewOrigin(volume, None, since - timedelta(hours=1))])
    with pytest.raises(Forbidden):
        RelationsClient(make_client(glance.url, MEMBER)).remove_origin(volume, since)
    client.remove_origin(volume, since)
    assert list(client.origins(instance_id=instance)) == [other]
    with pytest.raises(NotFound) as caught:
        client.remove_origin(volume, since)
    assert caught.value.code == "origin.not-found"
    admin = RelationsClient(make_client(glance.url, ADMIN))
    admin.remove_origin(volume, "2026-01-31T01:00:00.123456Z")
    assert list(client.origins(instance_id=instance)) == []


def test_one_refused_origin_leaves_the_others(
    make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    client = RelationsClient(make_client(glance.url, SERVICE))
    server, volume, other = (
        InstanceRef(INSTALLATION, f"{instance}-{type}", type)
        for type in ("server", "volume", "volume-backup")
    )
    now = datetime.now(UTC)
    first = NewOrigin(volume, other, now, "demo")
    refused, recorded = client.record_origins(
        [first, NewOrigin(volume, None, now), NewOrigin(server, volume, now)]
    )[1:]
    assert isinstance(refused, Conflict)
    assert (refused.status, refused.code) == (409, "origin.conflict")
    assert isinstance(recorded, Origin)
    with pytest.raises(Forbidden):
        RelationsClient(make_client(glance.url, MEMBER)).record_origins([first])
