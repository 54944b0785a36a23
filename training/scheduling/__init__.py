"""When the jobs of a project run, and what is done about it: pure schedules and the steps of one holder."""
