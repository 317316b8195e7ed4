"""`make matrix`: the tests with Glance, Nova and Cinder of older releases of OpenStack."""
