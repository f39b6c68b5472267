"""What the two MySQL drivers' adapters share: knowing, without asking, that a session has nothing to roll back."""
