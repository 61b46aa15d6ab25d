"""Loss functions: tensors in, scalar out, no modules and no state."""
