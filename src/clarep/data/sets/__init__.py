"""Test sets in the layouts in which their authors publish them."""
