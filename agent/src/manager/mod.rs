//! Which user endpoints run, from which command and template.
