"""The ``htcondor`` queue: an HTCondor pool that gets workers when jobs wait."""
