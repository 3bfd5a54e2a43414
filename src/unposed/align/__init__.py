"""From pair predictions to one scene."""
