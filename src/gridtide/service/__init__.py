"""The life-cycle and REST service: HTTP over ``control.api.SiteControl`` and ``pilot.protocol.Pilot``, no more."""
