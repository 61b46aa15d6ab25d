"""The inspector: what a user holds afterwards."""
