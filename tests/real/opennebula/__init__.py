"""The OpenNebula cloud against a double of OpenNebula's XML-RPC API: a real HTTP server, written from its reference."""
