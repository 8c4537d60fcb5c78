"""One Prefect task for every step: named after the step, cached by the step's own key."""
