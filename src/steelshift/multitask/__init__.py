"""Many tasks in one network: how related they are, and what sharing does to them. Functions of tensors and arrays."""
