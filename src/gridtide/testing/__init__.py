"""For tests, those of users included: conformance suites for drivers, and a world of fakes on any clock."""
