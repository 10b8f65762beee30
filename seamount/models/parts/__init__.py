"""The parts that every family is composed of: one file per attention kind, feed-forward and position embedding."""
