"""The robustness suite: what is measured on one student, stored part by part, gone on with."""
