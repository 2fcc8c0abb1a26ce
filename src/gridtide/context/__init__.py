"""What a machine is told at boot. The only secret in it is the join token."""
