"""Several methods or recipes side by side: trained or collected, and their figures beside the published ones."""
