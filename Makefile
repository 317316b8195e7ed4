# Each target installs what it needs, on a machine with Python 3.11 or newer.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PARALLEL := --numprocesses 2 --dist loadfile

.PHONY: run test slow-test lowest-test mysqlclient-test heat-test horizon-test cloud-test rotations volume-races killed-runs check bench fuzz glance-suite matrix dist clean

run: $(VENV)/.installed-run
	$(BIN)/related-images serve $(ARGS)

# COVERAGE=1 prints the branch coverage of the least covered files and of everything. Low coverage
# fails nothing. It is not the default, because measuring takes half as long again.
test: $(VENV)/.installed-dev
ifdef COVERAGE
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL) $(ARGS); outcome=$$?; \
	$(BIN)/coverage combine --quiet; \
	$(BIN)/coverage report --sort=cover | sed -n '1,12p;$$p'; \
	exit $$outcome
else
	$(BIN)/pytest $(PARALLEL) $(ARGS)
endif

slow-test: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow $(PARALLEL) $(ARGS)

lowest-test: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/pytest -m '' $(PARALLEL) $(LOWEST) $(ARGS)

# The tests of the database with the other driver of MariaDB. pip builds it, with MariaDB's headers. The test of round
# trips counts the packets of PyMySQL.
mysqlclient-test: $(VENV)/.installed-mysqlclient
	RELATED_IMAGES_MYSQL_DRIVER=mysqldb $(BIN)/pytest -m '' $(PARALLEL) tests/db \
		-k 'mariadb and not five_round_trips' $(ARGS)

heat-test: $(VENV)/.installed-dev
	$(BIN)/pytest -m '' tests/heat $(ARGS)

# All these tests share a cloud. Those of cells come last: the second cell ends with them, and then no server can be started.
CELLS := tests/cloud/test_cells.py
ROTATIONS := tests/cloud/test_image_manager.py
CLOUD := $(sort $(filter-out $(CELLS) $(ROTATIONS),$(wildcard tests/cloud/test_*.py))) $(CELLS)

cloud-test: $(VENV)/.installed-cloud
	$(BIN)/pytest -m '' tests/integrations/test_cinder.py $(CLOUD) $(ARGS)

# two versions of openstack-image-manager
rotations: $(VENV)/.installed-cloud
	$(BIN)/pytest -m '' $(ROTATIONS) $(ARGS)

# deletions of an image during the creation of a volume: more rounds
volume-races: $(VENV)/.installed-cloud
	RELATED_IMAGES_VOLUME_ROUNDS=1000 $(BIN)/pytest -m '' tests/cloud/test_block_storage.py -k a_volume_is_made_of_it $(ARGS)

# Horizon has a virtual environment of its own.
horizon-test: $(VENV)/.installed-horizon $(VENV)-horizon/.installed
	$(BIN)/pytest -m '' tests/horizon $(ARGS)

# backups of servers: more runs that are killed at random
killed-runs: $(VENV)/.installed-cloud
	RELATED_IMAGES_KILLED_RUNS=50 $(BIN)/pytest -m '' tests/cloud/test_backup_run.py $(ARGS)

# The samples and both distributions: oslo-config-validator, oslopolicy-checker, systemd-analyze, promtool,
# shellcheck, twine. Without Debian's packages of promtool and systemd-analyze, their tests are skipped.
SAMPLE_CHECKS := tests/test_samples.py tests/middleware/test_policy.py::test_the_checker_of_oslo_policy_accepts_the_sample \
	tests/test_packaging.py::test_twine_accepts_the_files

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m '' $(SAMPLE_CHECKS)

# The wheels and source distributions of both distributions; two builds of one commit have the same bytes.
dist: $(VENV)/.installed-dev
	rm -rf dist
	umask 022; SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}; \
	export SOURCE_DATE_EPOCH; \
	for project in client .; do $(BIN)/python -m build --outdir dist $$project || exit; done
	$(BIN)/twine check --strict dist/*

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks $(ARGS)

glance-suite: $(VENV)/.installed-dev
	$(BIN)/python -m tests.glance_suite $(ARGS)

# Releases of OpenStack and versions of Python. Writes docs/compatibility.md, except with ARGS=--part.
matrix:
	$(PYTHON) -m tests.matrix $(ARGS)

fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-heat $(VENV)-horizon $(VENV)-image-manager-* $(VENV)-20* build dist *.egg-info client/*.egg-info client/build .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/.installed-%: setup.cfg client/setup.cfg setup.py pyproject.toml
	@echo "installing packages into $(VENV); the first time this takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS_$*)]'
	touch $@

# The oldest packages that setup.cfg allows, without OpenStack's services.
LOWEST := tests/test_lowest.py tests/db/test_database.py tests/db/test_dependent_pages.py \
	tests/db/test_outages.py \
	tests/db/test_pgbouncer.py tests/db/test_schema.py tests/db/test_urls.py \
	tests/middleware/test_routing.py tests/middleware/test_request.py \
	tests/middleware/test_databases.py tests/middleware/test_image_list.py \
	tests/middleware/test_policy.py tests/middleware/test_monitoring.py tests/test_config.py \
	tests/manage/test_cloud_options.py tests/manage/test_cinder_admin.py \
	tests/manage/test_nova_admin.py tests/manage/test_notification_listener.py \
	tests/manage/test_resource_type.py \
	tests/osc/test_arguments.py tests/client/test_context.py

$(VENV)-lowest/.installed: setup.cfg client/setup.cfg tests/lowest-constraints.txt
	test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint tests/lowest-constraints.txt \
		--editable '.[mysql,postgresql,cli,listen,reconcile]' python-glanceclient \
		hypothesis pytest pytest-xdist
	touch $@

$(VENV)-horizon/.installed: setup.cfg
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --editable '.[horizon-server]'
	touch $@

# All requirements of openstack-image-manager are pinned, so that it needs an environment of its own.
$(VENV)-image-manager-%/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet openstack-image-manager==$*
	touch $@

EXTRAS_run := glance,cli,reconcile
EXTRAS_dev := dev
EXTRAS_bench := dev,bench
EXTRAS_fuzz := fuzz
EXTRAS_mysqlclient := dev,mysqlclient
EXTRAS_heat := heat-test
EXTRAS_horizon := horizon-test
EXTRAS_cloud := cloud-test
