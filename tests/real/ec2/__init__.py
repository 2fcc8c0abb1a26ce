"""The EC2 cloud against a real HTTP endpoint: moto in server mode, in a process of its own."""
