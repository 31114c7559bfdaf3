"""A process that outlives the one that watches, and gives the domain back if that one ends badly."""
