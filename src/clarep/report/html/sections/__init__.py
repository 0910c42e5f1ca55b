"""The sections of the report, one file each: from `Material` to a `Section`."""
