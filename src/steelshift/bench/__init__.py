"""Many runs side by side: pairs of lines x methods x seeds, from one YAML file to one table."""
