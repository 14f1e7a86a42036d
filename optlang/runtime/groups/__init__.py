"""What users hand over: parameters, groups, settings, options; which rule steps what."""
