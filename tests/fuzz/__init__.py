"""Any request at all, however it is written: what may never come of it."""
