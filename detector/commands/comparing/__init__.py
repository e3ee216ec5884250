"""The parts of `detector compare`: the plan, its training, and what is compared."""
